//! Checkpoints in an S3 bucket, against a server that speaks as much of S3 as they need.

use std::sync::Mutex;
use std::time::Instant;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State as Shared};
use axum::http::{Method, Response, StatusCode};
use tokio::net::TcpListener;

use super::*;

/// The bucket's objects by their paths.
type Bucket = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

async fn answer(Shared(bucket): Shared<Bucket>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
    let key = parts.uri.path().trim_start_matches("/bucket").trim_start_matches('/').to_owned();
    let mut objects = bucket.lock().unwrap();
    let found = Response::builder().header("ETag", "\"x\"").header("Last-Modified", "Mon, 02 Mar 2026 12:00:00 GMT");
    match parts.method {
        Method::PUT => drop(objects.insert(key, body)),
        Method::POST => {
            let text = String::from_utf8(body).unwrap();
            let keys = text.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap());
            let deleted = keys.map(|key| {
                objects.remove(key).unwrap();
                format!("<Deleted><Key>{key}</Key></Deleted>")
            });
            let text = format!("<DeleteResult>{}</DeleteResult>", deleted.collect::<String>());
            return found.body(text.into()).unwrap();
        }
        _ if key.is_empty() => return found.body(listing(&objects, parts.uri.query().unwrap()).into()).unwrap(),
        _ => match objects.get(&key) {
            Some(bytes) => return found.body(bytes.clone().into()).unwrap(),
            None => return Response::builder().status(StatusCode::NOT_FOUND).body(Body::empty()).unwrap(),
        },
    }
    found.body(Body::empty()).unwrap()
}

fn listing(objects: &BTreeMap<String, Vec<u8>>, query: &str) -> String {
    let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap().replace("%2F", "/");
    let contents = objects.iter().filter(|(key, _)| key.starts_with(&prefix)).map(|(key, bytes)| {
        let (size, modified) = (bytes.len(), "2026-03-02T12:00:00.000Z");
        format!("<Contents><Key>{key}</Key><Size>{size}</Size><LastModified>{modified}</LastModified></Contents>")
    });
    format!("<ListBucketResult>{}</ListBucketResult>", contents.collect::<String>())
}

/// Runs a test again in a process whose environment leads to an S3 at this port.
fn with_s3(test: &str, port: u16) -> bool {
    let root = tempfile::tempdir().unwrap();
    let keys = "AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b AWS_REGION=c AWS_ALLOW_HTTP=true BUCKET=not-for-us";
    let program = format!("exec \"$2\" --exact checkpoint::tests::cloud::{test} --nocapture");
    in_child(root.path(), &format!("export {keys} AWS_ENDPOINT=http://127.0.0.1:{port}; {program}"))
}

fn open_s3() -> Checkpoints {
    let url = Location::try_from("s3://bucket/some/where".to_owned()).unwrap();
    let config = config::Checkpoints { url, ..config::Checkpoints::default() };
    Checkpoints::open(&config, Arc::new(Status::new().unwrap())).unwrap()
}

#[test]
fn a_bucket_keeps_checkpoints_like_a_directory() {
    if std::env::var_os(CHILD).is_none() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let bucket = Bucket::default();
        let routes = axum::Router::new().fallback(answer).with_state(Arc::clone(&bucket));
        runtime.spawn(async move { axum::serve(listener, routes).await });
        assert!(with_s3("a_bucket_keeps_checkpoints_like_a_directory", port));
        let names: Vec<String> = bucket.lock().unwrap().keys().cloned().collect();
        assert!(
            names.iter().all(|name| name.starts_with("some/where/tautline-engine/tautline.events/3/")),
            "{names:?}"
        );
        assert_eq!(names.iter().filter(|name| name.contains("/manifest-")).count(), 3, "{names:?}");
        assert_eq!(names.iter().filter(|name| name.contains("/piece-")).count(), 1 + 3, "{names:?}");
        return;
    }
    let checkpoints = open_s3();
    assert_eq!(load(&checkpoints, i64::MAX), None);
    for offset in 1..=5 {
        save(&checkpoints, offset, pieces(&[(0, 1), (1, offset.cast_unsigned())]));
    }
    assert_eq!(failures(&checkpoints), 0.0);
    assert_eq!(load(&open_s3(), i64::MAX), Some((5, vec![(0, 1), (1, 5)])));
    assert_eq!(load(&open_s3(), 3), Some((3, vec![(0, 1), (1, 3)])));
    assert_eq!(load(&open_s3(), 2), None);
}

#[test]
fn a_cloud_that_does_not_answer_is_given_up_soon() {
    if std::env::var_os(CHILD).is_none() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert!(with_s3("a_cloud_that_does_not_answer_is_given_up_soon", closed));
        return;
    }
    let checkpoints = open_s3();
    let start = Instant::now();
    assert!(checkpoints.save(&place(), head(1), pieces(&[(0, 1)])));
    assert!(start.elapsed() < Duration::from_secs(1));
    let error = checkpoints.load(&place(), i64::MAX, soon(), |_| Ok(State::new()), restore).unwrap_err();
    assert!(format!("{error:#}").contains("cannot list `some/where/tautline-engine/"), "{error:#}");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert!(checkpoints.finish(soon()));
    assert_eq!(failures(&checkpoints), 1.0);
}

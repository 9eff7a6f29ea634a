//! The local web server: `/metrics`, `/healthz`, `/readyz`, a plain live page, and Alertmanager's webhook.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use tautline_detectors::deviation::Deviation;
use tokio::net::TcpListener;

use crate::output::text;
use crate::signals::Webhook;
use crate::status::{Blind, Status};

/// Opens the port, so that a taken one is an error at start-up.
pub(crate) async fn bind(listen: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(listen).await.with_context(|| format!("cannot listen on `{listen}`"))
}

/// The most bytes of a notification.
const LARGEST_NOTIFICATION: usize = 1024 * 1_024;

/// Serves until `stop` resolves; Alertmanager's notifications only with a webhook.
pub(crate) async fn serve(
    listener: TcpListener,
    status: Arc<Status>,
    webhook: Option<Webhook>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let routes = Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(status);
    let signals = |webhook| {
        let limit = DefaultBodyLimit::max(LARGEST_NOTIFICATION);
        Router::new().route("/signals/alertmanager", post(alertmanager)).layer(limit).with_state(Arc::new(webhook))
    };
    let routes = routes.merge(webhook.map_or_else(Router::new, signals));
    Ok(axum::serve(listener, routes).with_graceful_shutdown(stop).await?)
}

/// Takes a notification. What is answered with 503 Alertmanager sends again, what with 4xx it does not.
async fn alertmanager(State(webhook): State<Arc<Webhook>>, headers: HeaderMap, body: Bytes) -> Response {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if !webhook.admits(authorization) {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], "no such token\n").into_response();
    }
    let signals = match webhook.signals(&body) {
        Ok(signals) => signals,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error:#}\n")).into_response(),
    };
    match webhook.send(&signals).await {
        Ok(()) => format!("{} signals\n", signals.len()).into_response(),
        Err(error) => {
            tracing::error!("signals of Alertmanager are lost unless it sends them again: {error:#}");
            (StatusCode::SERVICE_UNAVAILABLE, "the broker does not take them: send them again\n").into_response()
        }
    }
}

async fn metrics(State(status): State<Arc<Status>>) -> Response {
    match status.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn healthz(State(status): State<Arc<Status>>) -> Response {
    answer("stuck", &status.stuck())
}

async fn readyz(State(status): State<Arc<Status>>) -> Response {
    answer("not ready", &status.not_ready())
}

fn answer(trouble: &str, stages: &[&str]) -> Response {
    if stages.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}: {}\n", stages.join(", "))).into_response()
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;max-width:110rem}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .8rem .3rem 0;vertical-align:top;\
border-bottom:1px solid #8884}.critical{color:#c00;font-weight:600}.high{color:#c40}.medium{color:#a60}\
small{opacity:.75}:root{color-scheme:light dark}";

async fn page(State(status): State<Arc<Status>>) -> Response {
    let rows = status.latest().iter().fold(String::new(), |mut rows, deviation| {
        // Writing to a string cannot fail.
        let _ = row(&mut rows, deviation);
        rows
    });
    let body = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=2>\
         <meta name=viewport content='width=device-width'><title>Tautline</title><style>{STYLE}</style>\
         <h1>Tautline: latest deviations</h1><p>Newest first. <a href=/metrics>Metrics</a>\
         <table><thead><tr><th>Time (UTC)<th>Severity<th>Control<th>Trust<th>What</thead><tbody>{rows}</tbody></table>{}",
        blind(&status.blind())
    );
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(body)).into_response()
}

/// What the controls cannot see: that they found nothing there says nothing.
fn blind(blind: &[Blind]) -> String {
    if blind.is_empty() {
        return String::new();
    }
    let rows = blind.iter().fold(String::new(), |mut rows, Blind { control, reason, agents }| {
        // Writing to a string cannot fail.
        let _ = write!(rows, "<tr><td>{}<td>{reason}<td>{agents}", escaped(control));
        rows
    });
    format!(
        "<h2>Blind</h2><p>Of these agents the controls cannot tell whether anything is wrong, for want of a source.\
         <table><thead><tr><th>Control<th>Source<th>Agents</thead><tbody>{rows}</tbody></table>"
    )
}

fn row(rows: &mut String, deviation: &Deviation) -> std::fmt::Result {
    let severity = deviation.severity;
    write!(
        rows,
        "<tr><td>{}<td class={severity}>{severity}<td>{}<td>{:.0}<td>{}<br><small>would have complied: {}</small>",
        text::time(deviation.at),
        escaped(&deviation.control),
        deviation.trust.after,
        escaped(&deviation.summary),
        escaped(&deviation.counterfactual),
    )
}

/// Text for HTML: what an agent writes is an attacker's.
fn escaped(text: &str) -> String {
    text::printable(text).chars().fold(String::with_capacity(text.len()), |mut safe, c| {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
        safe
    })
}

#[cfg(test)]
mod tests {
    use super::{Blind, blind, escaped};

    #[test]
    fn what_is_blind_is_said_and_nothing_where_nothing_is() {
        assert_eq!(blind(&[]), "");
        let one = blind(&[Blind { control: "<reach>".to_owned(), reason: "audit", agents: 3 }]);
        assert!(one.contains("<td>&lt;reach&gt;<td>audit<td>3"), "{one}");
    }

    #[test]
    fn hostile_text_is_no_markup() {
        assert_eq!(escaped("<script>'\"&\u{1b}"), "&lt;script&gt;&#39;&quot;&amp;\u{fffd}");
    }
}

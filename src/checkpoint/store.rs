//! Objects by name, in a local directory or in a cloud's object store.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, ObjectStoreScheme, parse_url_opts};
use serde::Deserialize;
use tokio::runtime::Runtime;
use url::Url;

use super::Place;

/// How long a store may take to say what it holds.
const LISTING: Duration = Duration::from_secs(3);
/// How long it may take over one object.
const TRANSFER: Duration = Duration::from_secs(20);
/// Environment variables that are meant for a cloud's store begin with one of these; the store's own parser would also
/// take plain ones like `BUCKET`.
const ENVIRONMENT: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];

/// Where checkpoints are kept, or files to replay.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Location {
    Directory(PathBuf),
    Cloud(Url),
}

impl TryFrom<String> for Location {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        use ObjectStoreScheme::{AmazonS3, GoogleCloudStorage, Local, MicrosoftAzure};
        if !text.is_empty() && !text.contains("://") {
            return Ok(Self::Directory(text.into()));
        }
        let unknown = || format!("`{text}` is no place for files: name a directory, `s3://…`, `gs://…` or `az://…`");
        let url = Url::parse(&text).map_err(|_| unknown())?;
        match ObjectStoreScheme::parse(&url) {
            Ok((Local, _)) => url.to_file_path().map(Self::Directory).map_err(|()| unknown()),
            Ok((AmazonS3 | GoogleCloudStorage | MicrosoftAzure, _)) if cfg!(feature = "cloud") => Ok(Self::Cloud(url)),
            Ok((AmazonS3 | GoogleCloudStorage | MicrosoftAzure, _)) => {
                Err(format!("`{text}` is beyond this build: build with `--features cloud`, or name a directory"))
            }
            _ => Err(unknown()),
        }
    }
}

/// One object of a listing.
pub(super) struct Object {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// When it was written, in seconds since 1970 by the store's clock.
    pub(super) modified: i64,
}

impl Object {
    /// Whether it was written more than so many seconds before `now`.
    pub(super) fn is_older(&self, seconds: i64, now: i64) -> bool {
        now - self.modified > seconds
    }
}

/// The store, and the runtime on which whoever calls waits for it.
#[derive(Debug)]
pub(super) struct Store {
    objects: Box<dyn ObjectStore>,
    prefix: Path,
    /// The directory, where it is a local one: it is written to by ourselves, because `object_store` does not sync.
    local: Option<PathBuf>,
    runtime: Runtime,
}

impl Store {
    pub(super) fn open(location: &Location) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match location {
            Location::Directory(path) => {
                create_directory(path).with_context(|| format!("cannot create `{}`", path.display()))?;
                let root = path.canonicalize().with_context(|| format!("cannot open `{}`", path.display()))?;
                let objects = Box::new(LocalFileSystem::new_with_prefix(&root)?);
                Ok(Self { objects, prefix: Path::default(), local: Some(root), runtime })
            }
            Location::Cloud(url) => {
                let (objects, prefix) =
                    parse_url_opts(url, environment()).with_context(|| format!("cannot use `{url}`"))?;
                Ok(Self { objects, prefix, local: None, runtime })
            }
        }
    }

    /// Where a place's checkpoints are.
    pub(super) fn directory(&self, place: &Place) -> Path {
        let place = [place.group.clone(), place.topic.clone(), place.partition.to_string()];
        place.into_iter().fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// Writes an object; it lasts once its directory is synced.
    pub(super) fn put(&self, path: &Path, bytes: Vec<u8>) -> Result<()> {
        let written = match &self.local {
            Some(root) => put_file(&root.join(path.as_ref()), &bytes).map_err(anyhow::Error::from),
            None => self.wait(TRANSFER, self.objects.put(path, bytes.into())).map(drop).map_err(Into::into),
        };
        written.with_context(|| format!("cannot write `{path}`"))
    }

    /// Makes the names last of everything that was put into a directory.
    pub(super) fn sync(&self, directory: &Path) -> Result<()> {
        let Some(root) = &self.local else { return Ok(()) };
        let synced = File::open(root.join(directory.as_ref())).and_then(|directory| directory.sync_all());
        synced.with_context(|| format!("cannot sync `{directory}`"))
    }

    /// An object's bytes; `None` where there is no such object.
    pub(super) fn get(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        match self.wait(TRANSFER, async { self.objects.get(path).await?.bytes().await }) {
            Err(Error::NotFound { .. }) => Ok(None),
            read => Ok(Some(read.with_context(|| format!("cannot read `{path}`"))?.into())),
        }
    }

    /// All objects of a directory; none where there is no such directory.
    pub(super) fn list(&self, directory: &Path) -> Result<Vec<Object>> {
        let listed = self.wait(LISTING, self.objects.list_with_delimiter(Some(directory)));
        let listed = listed.with_context(|| format!("cannot list `{directory}`"))?;
        let objects = listed.objects.into_iter().filter_map(|object| {
            let name = object.location.filename()?.to_owned();
            Some(Object { name, bytes: object.size, modified: object.last_modified.timestamp() })
        });
        Ok(objects.collect())
    }

    /// Deletes an object, if it is there.
    pub(super) fn delete(&self, path: &Path) -> Result<()> {
        match self.wait(TRANSFER, self.objects.delete(path)) {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot delete `{path}`")),
        }
    }

    fn wait<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> object_store::Result<T> {
        self.runtime.block_on(async {
            tokio::time::timeout(patience, work).await.unwrap_or_else(|_| {
                let source = format!("no answer within {} s", patience.as_secs()).into();
                Err(Error::Generic { store: "checkpoint", source })
            })
        })
    }
}

/// What the environment says about the cloud's store.
pub(crate) fn environment() -> impl Iterator<Item = (String, String)> {
    let texts =
        std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    texts.filter(|(key, _)| ENVIRONMENT.iter().any(|prefix| key.starts_with(prefix)))
}

/// Writes a file under another name first, so that nobody ever sees half of it.
fn put_file(path: &std::path::Path, bytes: &[u8]) -> io::Result<()> {
    create_directory(path.parent().unwrap_or(path))?;
    let part = path.with_extension("part");
    let written = File::create_new(&part)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        // What is left is deleted with the next clean-up.
        let _ = fs::remove_file(&part);
    }
    written
}

/// Creates a directory and all above it, so that they last.
fn create_directory(path: &std::path::Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(".".as_ref());
    create_directory(parent)?;
    match fs::create_dir(path) {
        // Another process may have been first.
        Err(error) if !path.is_dir() => Err(error),
        _ => File::open(parent)?.sync_all(),
    }
}

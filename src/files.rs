//! The files of a replay, wherever they lie, and the records in them.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use flate2::read::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, parse_url_opts};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use tautline_detectors::event::Millis;
use tautline_ingest::{Format, RECORD_MAX, Reader};
use tokio::runtime::Runtime;
use url::Url;

use crate::checkpoint::{Location, environment};

/// How much of an object is fetched at once.
const PIECE: u64 = 8 * 1_024 * 1_024;

/// Endings of the names that count in a directory.
const LOGS: [&str; 4] = [".json", ".jsonl", ".ndjson", ".log"];

/// One file of a replay.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    /// How messages name it.
    pub(crate) name: String,
    /// How long it is as it lies there; 0 where that is not known.
    pub(crate) bytes: u64,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Stdin,
    File(PathBuf),
    Object(Arc<Bucket>, object_store::path::Path),
}

impl Input {
    /// Everything that was named: a file, `-` for standard input, a directory or a prefix of an object store with all logs
    /// below it.
    pub(crate) fn all(named: &[PathBuf]) -> Result<Vec<Self>> {
        let mut inputs = Vec::new();
        for path in named {
            if path == Path::new("-") {
                inputs.push(Self { name: "-".to_owned(), bytes: 0, place: Place::Stdin });
            } else if let Some(url) = path.to_str().filter(|text| text.contains("://")) {
                inputs.extend(objects(url)?);
            } else {
                inputs.extend(files(path)?);
            }
        }
        Ok(inputs)
    }

    fn open(&self) -> Result<Box<dyn Read + Send>> {
        Ok(match &self.place {
            Place::Stdin => Box::new(io::stdin()),
            Place::File(path) => Box::new(File::open(path).with_context(|| format!("cannot open `{}`", self.name))?),
            Place::Object(bucket, path) => {
                let (bucket, path) = (Arc::clone(bucket), path.clone());
                Box::new(ObjectReader { bucket, path, next: 0, end: self.bytes, piece: io::Cursor::default() })
            }
        })
    }
}

fn files(path: &Path) -> Result<Vec<Input>> {
    let cannot = || format!("cannot open `{}`", path.display());
    let input = |path: PathBuf, bytes| Input { name: path.display().to_string(), bytes, place: Place::File(path) };
    let about = fs::metadata(path).with_context(cannot)?;
    if !about.is_dir() {
        return Ok(vec![input(path.to_owned(), about.len())]);
    }
    let (mut directories, mut found) = (vec![path.to_owned()], Vec::new());
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            let about = entry.metadata().with_context(cannot)?;
            if about.is_dir() {
                directories.push(entry.path());
            } else if about.is_file() {
                found.push(input(entry.path(), about.len()));
            }
        }
    }
    logs(found, &path.display())
}

fn objects(url: &str) -> Result<Vec<Input>> {
    match Location::try_from(url.to_owned()).map_err(|error| anyhow!(error))? {
        Location::Directory(path) => files(&path),
        Location::Cloud(url) => {
            let (bucket, prefix) = Bucket::open(&url)?;
            logs(bucket.below(&url, prefix)?, &url)
        }
    }
}

/// The logs among what was found in a place, in the order in which they were written.
fn logs(mut found: Vec<Input>, place: &impl std::fmt::Display) -> Result<Vec<Input>> {
    found.retain(|input| is_log(&input.name));
    if found.is_empty() {
        return Err(anyhow!("`{place}` has no files that end in {} (also with .gz or .zst)", LOGS.join(", ")));
    }
    found.sort_by(|a, b| (written(&a.name), &a.name).cmp(&(written(&b.name), &b.name)));
    Ok(found)
}

/// Digests of log files lie beside those of CloudTrail, and are none.
fn is_log(name: &str) -> bool {
    let bare = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(name);
    LOGS.iter().any(|ending| bare.ends_with(ending)) && !name.contains("/CloudTrail-Digest/")
}

/// When CloudTrail wrote a log file, as its name says (`<account>_CloudTrail_<region>_20260302T0905Z_<random>.json.gz`): a
/// directory of every region and account is not in the order of its names.
fn written(name: &str) -> Option<&str> {
    let (_, file) = name.rsplit_once("_CloudTrail_")?;
    file.split('_').find(|part| part.len() == 14 && part.ends_with('Z') && part.contains('T'))
}

/// An object store, and the runtime on which whoever reads waits for it.
#[derive(Debug)]
struct Bucket {
    objects: Box<dyn ObjectStore>,
    runtime: Runtime,
}

impl Bucket {
    fn open(url: &Url) -> Result<(Arc<Self>, object_store::path::Path)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (objects, prefix) = parse_url_opts(url, environment()).with_context(|| format!("cannot use `{url}`"))?;
        Ok((Arc::new(Self { objects, runtime }), prefix))
    }

    /// Every object below a prefix, or the one that it names.
    fn below(self: &Arc<Self>, url: &Url, prefix: object_store::path::Path) -> Result<Vec<Input>> {
        let mut objects = Vec::from_iter(self.runtime.block_on(self.objects.head(&prefix)).ok());
        let mut prefixes = vec![prefix];
        while let Some(prefix) = prefixes.pop() {
            let listed = self.runtime.block_on(self.objects.list_with_delimiter(Some(&prefix)));
            let listed = listed.with_context(|| format!("cannot list `{prefix}` of `{url}`"))?;
            prefixes.extend(listed.common_prefixes);
            objects.extend(listed.objects);
        }
        let input = |object: ObjectMeta| Input {
            name: object.location.to_string(),
            bytes: object.size,
            place: Place::Object(Arc::clone(self), object.location),
        };
        Ok(objects.into_iter().map(input).collect())
    }
}

/// Reads an object piece by piece.
struct ObjectReader {
    bucket: Arc<Bucket>,
    path: object_store::path::Path,
    next: u64,
    end: u64,
    piece: io::Cursor<Vec<u8>>,
}

impl Read for ObjectReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.piece.read(into)?;
        if read > 0 || into.is_empty() || self.next == self.end {
            return Ok(read);
        }
        let range = self.next..self.end.min(self.next + PIECE);
        self.next = range.end;
        let fetched = self.bucket.runtime.block_on(self.bucket.objects.get_range(&self.path, range));
        self.piece = io::Cursor::new(fetched.map_err(io::Error::other)?.into());
        self.piece.read(into)
    }
}

/// A bar that shows how much of these files was read; hidden where nobody watches.
pub(crate) fn progress_bar<'i>(inputs: impl Iterator<Item = &'i Input>, is_shown: bool) -> ProgressBar {
    if !is_shown {
        return ProgressBar::hidden();
    }
    let total: Option<u64> = inputs.map(|input| (input.bytes > 0).then_some(input.bytes)).sum();
    let template = match total {
        Some(_) => "{wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
        None => "{spinner} {bytes}, {bytes_per_sec}, {elapsed}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    total.map_or_else(ProgressBar::new_spinner, ProgressBar::new).with_style(style)
}

/// Hands over every record of a file that this reader is for, with its number from 1, and when it was received: now.
pub(crate) fn each_record(
    input: &Input,
    reader: &Reader,
    bar: &ProgressBar,
    mut handle: impl FnMut(u64, &[u8], Millis) -> Result<()>,
) -> Result<()> {
    // To a declared mapping a record is whatever is a line, also where it looks like a log file.
    let splits = matches!(reader, Reader::Format(Format::Auto | Format::Cloudtrail));
    let mut records = Records::open(input, splits, bar)?;
    let mut record = Vec::new();
    let received = Timestamp::now().as_millisecond();
    let mut number = 0;
    while records.next_into(&mut record)? {
        number += 1;
        // Blank lines separate scenarios in the controls' own files.
        if !record.trim_ascii().is_empty() {
            handle(number, &record, received)?;
        }
    }
    Ok(())
}

/// The records of a file, one a line; or, where it begins as CloudTrail's log files do, `{"Records": [...]}`, the members of
/// that and of what was joined to it, however long. What is compressed with gzip or zstd is recognised by its first bytes.
pub(crate) struct Records {
    reader: Box<dyn BufRead + Send>,
    /// Whether a log file of CloudTrail that comes next is taken apart.
    splits: bool,
    /// Whether the next record is a member of a log file.
    is_inside: bool,
}

impl Records {
    /// Opens a file; what is read of it moves the bar.
    pub(crate) fn open(input: &Input, splits: bool, bar: &ProgressBar) -> Result<Self> {
        let raw = bar.wrap_read(input.open()?);
        Self::of(raw, splits).with_context(|| format!("cannot read `{}`", input.name))
    }

    pub(crate) fn of(raw: impl Read + Send + 'static, splits: bool) -> io::Result<Self> {
        let mut buffered = BufReader::with_capacity(256 * 1_024, raw);
        let reader: Box<dyn BufRead + Send> = match buffered.fill_buf()? {
            [0x1f, 0x8b, ..] => Box::new(BufReader::new(MultiGzDecoder::new(buffered))),
            // A frame of zstd, or one that its tools skip.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Box::new(BufReader::new(Zstd { packed: buffered, decoder: FrameDecoder::new() }))
            }
            _ => Box::new(buffered),
        };
        Ok(Self { reader: unmarked(reader)?, splits, is_inside: false })
    }

    /// The next record's bytes without the line's end; `false` at the end. One over the bound for records is read to just
    /// past it, so that its rejection can say so, and the rest of it is skipped.
    pub(crate) fn next_into(&mut self, record: &mut Vec<u8>) -> io::Result<bool> {
        record.clear();
        if self.splits && !self.is_inside {
            self.is_inside = self.begins_log_file(record)?;
        }
        if self.is_inside {
            return self.member(record);
        }
        let is_there = self.line(record)?;
        self.splits &= record.trim_ascii().is_empty();
        Ok(is_there)
    }

    /// Whether a log file begins here. What is read of anything else is kept.
    fn begins_log_file(&mut self, read: &mut Vec<u8>) -> io::Result<bool> {
        for token in ["{", "\"Records\"", ":", "["] {
            for (at, expected) in token.bytes().enumerate() {
                loop {
                    let Some(&byte) = self.reader.fill_buf()?.first() else { return Ok(false) };
                    let is_between = at == 0 && !read.is_empty() && byte.is_ascii_whitespace();
                    if byte != expected && !is_between {
                        return Ok(false);
                    }
                    read.push(byte);
                    self.reader.consume(1);
                    if byte == expected {
                        break;
                    }
                }
            }
        }
        read.clear();
        Ok(true)
    }

    fn member(&mut self, record: &mut Vec<u8>) -> io::Result<bool> {
        let end = match self.until(b",]", record)? {
            Some(b']') => self.until(b"}", &mut Vec::new())?,
            end => end,
        };
        self.is_inside = end == Some(b',');
        let cut_off = || io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends inside of `Records`");
        end.map(|_| true).ok_or_else(cut_off)
    }

    /// Reads on to the first of these bytes that stands in no string and no bracket, and past it.
    fn until(&mut self, stops: &[u8], read: &mut Vec<u8>) -> io::Result<Option<u8>> {
        let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
        loop {
            let chunk = self.reader.fill_buf()?;
            let mut stop = None;
            let mut length = 0;
            for &byte in chunk {
                length += 1;
                match byte {
                    _ if is_escaped => is_escaped = false,
                    b'\\' if in_string => is_escaped = true,
                    b'"' => in_string = !in_string,
                    _ if in_string => {}
                    _ if depth == 0 && stops.contains(&byte) => {
                        stop = Some(byte);
                        break;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            let kept = length - usize::from(stop.is_some());
            read.extend_from_slice(
                chunk.get(..kept.min((RECORD_MAX + 1).saturating_sub(read.len()))).unwrap_or_default(),
            );
            self.reader.consume(length);
            if stop.is_some() || length == 0 {
                return Ok(stop);
            }
        }
    }

    fn line(&mut self, record: &mut Vec<u8>) -> io::Result<bool> {
        let bound = u64::try_from(RECORD_MAX).unwrap_or(u64::MAX).saturating_add(2);
        if (&mut self.reader).take(bound).read_until(b'\n', record)? == 0 {
            return Ok(!record.is_empty());
        }
        if record.last() == Some(&b'\n') {
            record.pop();
        } else {
            self.reader.skip_until(b'\n')?;
        }
        if record.last() == Some(&b'\r') {
            record.pop();
        }
        Ok(true)
    }
}

/// The text without the byte order mark that some tools write before it.
fn unmarked(mut reader: Box<dyn BufRead + Send>) -> io::Result<Box<dyn BufRead + Send>> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    let mut start = Vec::new();
    (&mut reader).take(3).read_to_end(&mut start)?;
    Ok(if start == MARK { reader } else { Box::new(io::Cursor::new(start).chain(reader)) })
}

/// Unpacks frames of zstd that follow each other.
struct Zstd<R> {
    packed: R,
    decoder: FrameDecoder,
}

impl<R: BufRead> Zstd<R> {
    /// Begins the next frame; those that only carry something for other tools are skipped. `false` at the end.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.packed.fill_buf()?.is_empty() {
            let length = match self.decoder.init(&mut self.packed) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => length,
                Err(error) => return Err(io::Error::other(error)),
            };
            let skipped = io::copy(&mut (&mut self.packed).take(length.into()), &mut io::sink())?;
            if skipped < length.into() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            while self.decoder.can_collect() < into.len() && !self.decoder.is_finished() {
                let missing = BlockDecodingStrategy::UptoBytes(into.len() - self.decoder.can_collect());
                self.decoder.decode_blocks(&mut self.packed, missing).map_err(io::Error::other)?;
            }
            let read = self.decoder.read(into)?;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            let (told, found) = (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
            if told.is_some() && told != found {
                return Err(io::Error::other("a wrong checksum"));
            }
            if !self.begin()? {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use object_store::memory::InMemory;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn read(mut records: Records) -> Vec<String> {
        let (mut all, mut record) = (Vec::new(), Vec::new());
        while records.next_into(&mut record).unwrap() {
            all.push(String::from_utf8_lossy(&record).trim().to_owned());
        }
        all
    }

    fn records(text: &str, splits: bool) -> Vec<String> {
        let found = read(Records::of(io::Cursor::new(text.to_owned()), splits).unwrap());
        // However the bytes come in.
        let slow = BufReader::with_capacity(1, io::Cursor::new(text.to_owned()));
        assert_eq!(read(Records { reader: Box::new(slow), splits, is_inside: false }), found);
        found.into_iter().filter(|record| !record.is_empty()).collect()
    }

    #[test]
    fn a_log_file_is_taken_apart_and_anything_else_is_lines() {
        let member = r#"{"a": "]},{\"", "b": [1, {}]}"#;
        assert_eq!(records(&format!(r#"{{"Records":[{member},{member}]}}"#), true), [member, member]);
        let pretty = format!("{{\n  \"Records\": [\n    {member},\n    7\n  ], \"more\": [{{}}]\n}}\n");
        assert_eq!(records(&pretty, true), [member, "7"]);
        assert_eq!(records(&format!("\n{pretty}{pretty}{{\"b\":2}}\n{{\"Records\":[]}}"), true).len(), 6);
        assert_eq!(records(r#"{"Records":[1]}{"Records":[2]}"#, true), ["1", "2"]);
        assert_eq!(records(r#"{"Records":[]}"#, true), [""; 0]);
        let other =
            ["{", r#"{"Record":[1]}"#, r#"{"Records":{}}"#, r#"{"Records "#, r#" {"Records":[1]}"#, "}", "\"Records"];
        assert_eq!(records(&other.join("\n"), true).concat().replace(['\n', ' '], ""), other.concat().replace(' ', ""));
        assert_eq!(records(r#"{"Records":[1, 2]}"#, false), [r#"{"Records":[1, 2]}"#]);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_file() {
        let pack = |text: &str| compress_to_vec(text.as_bytes(), CompressionLevel::Fastest);
        for text in ["{\"Records\":[1,2]}", "1\n2", "1\r\n2\r\n"] {
            let marked = format!("\u{feff}{text}");
            for bytes in [pack(&marked), marked.into_bytes()] {
                assert_eq!(read(Records::of(io::Cursor::new(bytes), true).unwrap()), ["1", "2"]);
            }
        }
        for short in ["", "1", "\u{feff}"] {
            let text = read(Records::of(io::Cursor::new(short), true).unwrap()).concat();
            assert_eq!(text, short.trim_start_matches('\u{feff}'));
        }
    }

    #[test]
    fn a_log_file_that_is_cut_off_is_an_error_and_a_huge_member_is_read_to_its_bound() {
        let whole = r#"{"Records":[{"a":1},{"b":2}]}"#;
        for length in 12..whole.len() {
            let mut records =
                Records::of(io::Cursor::new(whole.as_bytes().get(..length).unwrap().to_vec()), true).unwrap();
            let (mut record, mut result) = (Vec::new(), Ok(true));
            while matches!(result, Ok(true)) {
                result = records.next_into(&mut record);
            }
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{length}");
        }
        let huge = format!(r#"{{"Records":["{}",1]}}"#, "x".repeat(RECORD_MAX));
        let records = read(Records::of(io::Cursor::new(huge), true).unwrap());
        assert_eq!(records.iter().map(String::len).collect::<Vec<_>>(), [RECORD_MAX + 1, 1]);
    }

    #[test]
    fn zstd_is_unpacked_frame_by_frame() {
        let pack = |text: &str| compress_to_vec(text.as_bytes(), CompressionLevel::Fastest);
        let packed = [pack("a\nb"), pack(""), pack("c\nd")].concat();
        assert_eq!(read(Records::of(io::Cursor::new(packed.clone()), true).unwrap()), ["a", "bc", "d"]);
        let skipped = b"\x50\x2a\x4d\x18\x03\0\0\0abc";
        let around = [skipped, &pack("a\nb")[..], skipped, skipped, &pack("c"), skipped].concat();
        assert_eq!(read(Records::of(io::Cursor::new(around.clone()), true).unwrap()), ["a", "bc"]);
        let mut short = Records::of(io::Cursor::new(around.get(..around.len() - 1).unwrap().to_vec()), true).unwrap();
        assert!(std::iter::repeat_with(|| short.next_into(&mut Vec::new())).take(9).any(|read| read.is_err()));
        let mut cut = Records::of(io::Cursor::new(packed.get(..packed.len() - 3).unwrap().to_vec()), true).unwrap();
        let mut record = Vec::new();
        assert!(std::iter::repeat_with(|| cut.next_into(&mut record)).take(9).any(|read| read.is_err()));
    }

    #[test]
    fn the_logs_of_a_bucket_come_in_the_order_they_were_written() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bucket = Arc::new(Bucket { objects: Box::new(InMemory::new()), runtime });
        let long = "x\n".repeat(usize::try_from(PIECE).unwrap());
        for (name, text) in [
            ("in/AWSLogs/1/CloudTrail/us-east-1/2026/03/02/1_CloudTrail_us-east-1_20260302T0905Z_a.json", "third"),
            ("in/AWSLogs/1/CloudTrail/eu-west-1/2026/03/02/1_CloudTrail_eu-west-1_20260302T0910Z_b.json", &long),
            ("in/AWSLogs/1/CloudTrail-Digest/us-east-1/2026/03/02/1_CloudTrail-Digest_x.json.gz", "none"),
            ("in/AWSLogs/2/CloudTrail/eu-west-1/2026/03/02/2_CloudTrail_eu-west-1_20260302T0900Z_c.json", "second"),
            ("in/plain.jsonl", "first"),
            ("in/README.md", "none"),
            ("other/plain.jsonl", "none"),
        ] {
            let text = text.to_owned().into_bytes();
            bucket.runtime.block_on(bucket.objects.put(&name.into(), text.into())).unwrap();
        }
        let url = Url::parse("s3://bucket/in").unwrap();
        let inputs = logs(bucket.below(&url, "in".into()).unwrap(), &url).unwrap();
        let read: Vec<Vec<String>> =
            inputs.iter().map(|input| read(Records::open(input, true, &ProgressBar::hidden()).unwrap())).collect();
        let sizes: Vec<usize> = read.iter().map(Vec::len).collect();
        assert_eq!(sizes, [1, 1, 1, long.len() / 2]);
        assert_eq!(read.concat().get(..3).unwrap(), ["first", "second", "third"]);
        assert_eq!(bucket.below(&url, "in/plain.jsonl".into()).unwrap().len(), 1);
        assert!(logs(bucket.below(&url, "none".into()).unwrap(), &url).is_err());
    }
}

//! What may lie around a record: the header of a schema registry, and a compression of its own.

use std::borrow::Cow;
use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use crate::protobuf::varint;
use crate::{RECORD_MAX, Reason, Rejection};

/// How many frames of zstd may follow each other.
const FRAMES_MAX: usize = 1_024;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// The bytes of the record itself. A producer's serializer puts its header before or behind the compression.
pub(crate) fn bare(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Rejection> {
    match unpacked(unframed(bytes))? {
        Cow::Borrowed(bytes) => Ok(Cow::Borrowed(bytes)),
        Cow::Owned(unpacked) => {
            let header = unpacked.len() - unframed(&unpacked).len();
            Ok(Cow::Owned(unpacked.get(header..).map(<[u8]>::to_vec).filter(|_| header > 0).unwrap_or(unpacked)))
        }
    }
}

/// What follows the header of a schema registry: a zero, the schema's id of four bytes and, for protobuf, the way to the
/// message's type. Neither JSON nor protobuf nor a compressed record begins with a zero.
fn unframed(bytes: &[u8]) -> &[u8] {
    match bytes {
        [0, _, _, _, _, rest @ ..] => unindexed(rest).unwrap_or(rest),
        _ => bytes,
    }
}

/// What follows the indexes of a message's type: their number and each of them, or one zero for the first message of all.
/// A batch of spans begins with its only field (10), JSON with what is no small number either.
fn unindexed(bytes: &[u8]) -> Option<&[u8]> {
    /// How many types may be nested in each other; twice that, because the number is written zigzag.
    const DEPTH_MAX: u64 = 2 * 4;
    let mut rest = bytes;
    let number = varint(&mut rest).filter(|number| *number <= DEPTH_MAX && number % 2 == 0)?;
    for _ in 0..number / 2 {
        varint(&mut rest)?;
    }
    Some(rest)
}

fn unpacked(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Rejection> {
    let mut unpacked = Vec::new();
    let (name, read) = if bytes.starts_with(GZIP) {
        ("gzip", append(MultiGzDecoder::new(bytes), &mut unpacked))
    } else if bytes.starts_with(ZSTD) || skippable(bytes).is_some() {
        ("zstd", unzstd(bytes, &mut unpacked))
    } else {
        return Ok(Cow::Borrowed(bytes));
    };
    if unpacked.len() > RECORD_MAX {
        let detail = format!("the record unpacks (`{name}`) to more than {RECORD_MAX} bytes");
        return Err(Rejection::new(Reason::TooLarge, detail));
    }
    match read {
        Ok(()) => Ok(Cow::Owned(unpacked)),
        Err(error) => Err(damaged(name, &error)),
    }
}

/// Reads until the bound is passed.
#[inline(never)]
fn append(decoder: impl Read, unpacked: &mut Vec<u8>) -> io::Result<()> {
    let left = (RECORD_MAX + 1).saturating_sub(unpacked.len());
    decoder.take(u64::try_from(left).unwrap_or(u64::MAX)).read_to_end(unpacked).map(drop)
}

/// Unpacks frames of zstd, until the bound is passed. Its decoder is large: whatever is not packed has no room made for it.
#[inline(never)]
fn unzstd(mut bytes: &[u8], unpacked: &mut Vec<u8>) -> io::Result<()> {
    let mut decoder = FrameDecoder::new();
    for _ in 0..FRAMES_MAX {
        if bytes.is_empty() || unpacked.len() > RECORD_MAX {
            return Ok(());
        }
        if let Some((length, rest)) = skippable(bytes) {
            bytes = rest.get(length..).ok_or(io::ErrorKind::UnexpectedEof)?;
            continue;
        }
        // The decoder makes room for the whole window before the first byte is there.
        if window(bytes).is_none_or(|window| window > u64::try_from(RECORD_MAX).unwrap_or(u64::MAX)) {
            return Err(io::Error::other(format!("a window of more than {RECORD_MAX} bytes, or no frame")));
        }
        let stream = StreamingDecoder::new_with_decoder(&mut bytes, &mut decoder).map_err(io::Error::other)?;
        append(stream, unpacked)?;
        let (told, found) = (decoder.get_checksum_from_data(), decoder.get_calculated_checksum());
        if unpacked.len() <= RECORD_MAX && told.is_some() && told != found {
            return Err(io::Error::other("a wrong checksum"));
        }
    }
    Err(io::Error::other(format!("more than {FRAMES_MAX} frames")))
}

/// The length of a frame that only carries something for other tools, and what follows its head.
fn skippable(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    let [0x50..=0x5f, 0x2a, 0x4d, 0x18, length @ ..] = head else { return None };
    Some((usize::try_from(u32::from_le_bytes(*length)).ok()?, rest))
}

/// The window that a frame asks for: what its descriptor says, or the size of its content, where that is one segment.
fn window(frame: &[u8]) -> Option<u64> {
    let (descriptor, rest) = frame.get(ZSTD.len()..)?.split_first()?;
    if descriptor & 0x20 == 0 {
        let (exponent, mantissa) = (rest.first()? >> 3, u64::from(rest.first()? & 7));
        let base = 1_u64 << (10 + exponent);
        return Some(base + base / 8 * mantissa);
    }
    let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 3))?;
    let length = 1_usize << (descriptor >> 6);
    let size = rest.get(*dictionary..)?.get(..length)?;
    Some(size.iter().rev().fold(0, |size, byte| size << 8 | u64::from(*byte)))
}

fn damaged(name: &str, error: &io::Error) -> Rejection {
    Rejection::new(Reason::Damaged, format!("the record does not unpack (`{name}`): {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    const SKIPPED: &[u8] = b"\x5f\x2a\x4d\x18\x03\0\0\0abc";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    #[test]
    fn what_lies_around_a_record_is_taken_off() {
        let json = br#" {"a": 1}"#;
        let framed = [&[0, 0, 0, 0, 9][..], json].concat();
        for record in [
            json.to_vec(),
            framed.clone(),
            gzip(json),
            zstd(json),
            gzip(&framed),
            zstd(&framed),
            [&[0, 1, 2, 3, 4][..], &gzip(json)].concat(),
            [gzip(&json[..4]), gzip(&json[4..])].concat(),
            [zstd(&json[..4]), zstd(&json[4..])].concat(),
            [SKIPPED, &zstd(&json[..4]), SKIPPED, &zstd(&json[4..]), SKIPPED].concat(),
        ] {
            assert_eq!(bare(&record).unwrap(), &json[..]);
        }
        let message = b"\x0a\x02\x0a\x00";
        for indexes in [&[][..], &[0], &[2, 0], &[2, 2], &[4, 2, 0]] {
            let framed = [&[0, 0, 0, 0, 9], indexes, message].concat();
            assert_eq!(bare(&framed).unwrap(), &message[..], "{indexes:?}");
        }
        assert_eq!(bare(&[0, 0, 0]).unwrap(), &[0, 0, 0][..]);
        assert_eq!(bare(b"").unwrap(), &b""[..]);
    }

    #[test]
    fn a_bomb_is_refused_by_its_bound() {
        let bomb = vec![b' '; RECORD_MAX + 1];
        for packed in [gzip(&bomb), zstd(&bomb)] {
            let rejection = bare(&packed).unwrap_err();
            assert_eq!(rejection.reason, Reason::TooLarge);
            assert!(rejection.detail.ends_with("to more than 16777216 bytes"), "{rejection}");
        }
        assert_eq!(bare(&gzip(&bomb[1..])).unwrap().len(), RECORD_MAX);
        assert_eq!(bare(&zstd(&bomb[1..])).unwrap().len(), RECORD_MAX);
        // A window of 2 GiB, asked for by the head of a frame alone.
        assert_eq!(bare(b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00").unwrap_err().reason, Reason::Damaged);
    }

    #[test]
    fn what_is_cut_off_is_damaged() {
        let text = "a text that is long enough to be cut off somewhere".repeat(9);
        assert_eq!(bare(&SKIPPED[..10]).unwrap_err().reason, Reason::Damaged);
        assert_eq!(bare(SKIPPED).unwrap(), &b""[..]);
        for packed in [gzip(text.as_bytes()), zstd(text.as_bytes())] {
            for length in 4..packed.len() - 1 {
                assert_eq!(bare(&packed[..length]).unwrap_err().reason, Reason::Damaged, "{length}");
            }
        }
    }
}

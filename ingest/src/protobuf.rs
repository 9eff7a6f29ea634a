//! As much of protobuf's wire format as it takes to look for fields. Nothing is copied, and what a message claims to hold
//! takes no memory before it is there.

use crate::{Reason, Rejection};

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    /// A number of any width, as its bits.
    Number(u64),
    /// A text, bytes, or a message of its own.
    Bytes(&'a [u8]),
}

/// The fields of a message, in their order. Behind the first that is damaged there is nothing more.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Fields { rest: message }
    }

    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let tag = varint(&mut self.rest)?;
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut self.rest)?),
            1 => Field::Number(u64::from_le_bytes(*self.take(8)?.first_chunk()?)),
            2 => {
                let length = usize::try_from(varint(&mut self.rest)?).ok()?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Number(u32::from_le_bytes(*self.take(4)?.first_chunk()?).into()),
            _ => return None,
        };
        Some((tag >> 3, field)).filter(|(number, _)| *number != 0)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), Rejection>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or_else(|| Rejection::new(Reason::NotProtobuf, "a field is cut off or of no known kind")))
    }
}

/// Takes a number of up to ten bytes off the front.
pub(crate) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn fields(message: &[u8]) -> Vec<(u64, Field<'_>)> {
        Fields::of(message).map(Result::unwrap).collect()
    }

    #[test]
    fn every_kind_of_field_is_read() {
        assert_eq!(fields(b"\x08\xac\x02"), [(1, Field::Number(300))]);
        assert_eq!(fields(b"\x12\x02hi\x1d\x01\0\0\0"), [(2, Field::Bytes(b"hi")), (3, Field::Number(1))]);
        assert_eq!(fields(b"\x21\x02\0\0\0\0\0\0\0"), [(4, Field::Number(2))]);
        assert_eq!(fields(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), [(1, Field::Number(u64::MAX))]);
    }

    #[test]
    fn what_is_cut_off_or_no_field_ends_the_message() {
        for damaged in [
            &b"\x08"[..],
            b"\x0a\x05abc",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x09\0\0",
            b"\x0b\x0c",
            b"\x00\x00",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            let mut fields = Fields::of(damaged);
            assert_eq!(fields.next().unwrap().unwrap_err().reason, Reason::NotProtobuf, "{damaged:?}");
            assert!(fields.next().is_none());
        }
    }
}

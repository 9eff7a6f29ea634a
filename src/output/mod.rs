//! The wire forms of what Tautline says: OCSF findings, CAEP revocation requests, dead letters, and text for people.

pub(crate) mod caep;
pub(crate) mod dead_letter;
pub(crate) mod ocsf;
pub(crate) mod rollback;
pub(crate) mod text;

//! Texts to small numbers, inside one shard.

use std::hash::BuildHasher;
use std::sync::Arc;

use compact_str::CompactString;
use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

/// Texts per segment: what a freeze may make us copy when the next text comes.
const SEGMENT: usize = 1_024;

/// Texts by their numbers; copies share all segments but the last.
#[derive(Clone, Debug, Default)]
pub(super) struct Texts(Vec<Arc<Vec<CompactString>>>);

impl Texts {
    pub(super) fn get(&self, code: u32) -> &str {
        let (segment, place) = split(code);
        self.0.get(segment).and_then(|segment| segment.get(place)).map_or("", CompactString::as_str)
    }

    fn push(&mut self, text: &str) {
        match self.0.last_mut().filter(|segment| segment.len() < SEGMENT) {
            Some(segment) => Arc::make_mut(segment).push(text.into()),
            None => self.0.push(Arc::new(vec![text.into()])),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * SEGMENT + last.len())
    }
}

fn split(code: u32) -> (usize, usize) {
    let code = usize::try_from(code).unwrap_or(usize::MAX);
    (code / SEGMENT, code % SEGMENT)
}

/// Texts to small numbers. The numbers never order anything that reaches a score.
#[derive(Clone, Debug, Default)]
pub(super) struct Interner {
    codes: HashTable<u32>,
    texts: Texts,
}

impl Interner {
    pub(super) fn code(&self, text: &str) -> Option<u32> {
        self.codes.find(FxBuildHasher.hash_one(text), |code| self.texts.get(*code) == text).copied()
    }

    /// The number of a text, given to it now if it has none; `None` beyond `most` texts.
    pub(super) fn intern(&mut self, text: &str, most: u32) -> Option<u32> {
        if let Some(code) = self.code(text) {
            return Some(code);
        }
        let code = u32::try_from(self.texts.len()).ok().filter(|code| *code < most)?;
        self.texts.push(text);
        let texts = &self.texts;
        let hasher = |code: &u32| FxBuildHasher.hash_one(texts.get(*code));
        self.codes.insert_unique(FxBuildHasher.hash_one(text), code, hasher);
        Some(code)
    }

    pub(super) fn texts(&self) -> &Texts {
        &self.texts
    }
}

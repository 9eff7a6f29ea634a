//! What is counted of one agent, in one block of memory.

use std::ops::Range;

use super::{DIMENSIONS, Dimension};

/// How often a value came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Learned observations.
    pub count: u32,
    /// Observations that deviated, and so were reported and not learned.
    pub withheld: u32,
}

/// A dimension and a value's code in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(u32);

impl Key {
    const CODE_BITS: u32 = 27;
    /// More codes than this there are not.
    pub(super) const CODES: u32 = 1 << Self::CODE_BITS;

    pub(super) fn new(dimension: Dimension, code: u32) -> Self {
        Self((dimension as u32) << Self::CODE_BITS | code)
    }

    pub(super) fn dimension(self) -> u32 {
        self.0 >> Self::CODE_BITS
    }

    pub(super) fn code(self) -> u32 {
        self.0 & (Self::CODES - 1)
    }

    pub(super) fn word(self) -> u32 {
        self.0
    }
}

/// Cells by dimension and value code, sorted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cells {
    entries: Vec<(Key, Cell)>,
    /// Where each dimension's cells end.
    ends: [u16; DIMENSIONS.len()],
}

impl Cells {
    /// Sorts cells that are in no order; `None` if there are two of a value, or more than can be kept.
    pub(super) fn of(mut entries: Vec<(Key, Cell)>) -> Option<Self> {
        entries.sort_unstable_by_key(|(key, _)| *key);
        let is_double = entries.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b));
        let mut ends = [0; DIMENSIONS.len()];
        for (dimension, end) in (0..).zip(&mut ends) {
            *end = u16::try_from(entries.partition_point(|(key, _)| key.dimension() <= dimension)).ok()?;
        }
        (!is_double).then_some(Self { entries, ends })
    }

    /// The same without what was only reported, and without what detectors note of their reports.
    pub(super) fn unreported(&self) -> Self {
        let note = Dimension::Note as u32;
        let learned = self.entries.iter().filter(|(key, cell)| cell.count > 0 && key.dimension() != note);
        // Sorted and without doubles, as all of them are.
        Self::of(learned.copied().collect()).unwrap_or_default()
    }

    pub(super) fn all(&self) -> &[(Key, Cell)] {
        &self.entries
    }

    /// Reads where the search in each dimension begins.
    pub(super) fn touch(&self) -> u64 {
        let middle = |dimension| {
            let cells = self.of_dimension(dimension);
            cells.get(cells.len() / 2).map_or(0, |(_, cell)| u64::from(cell.count))
        };
        DIMENSIONS.into_iter().map(middle).sum()
    }

    fn range(&self, dimension: Dimension) -> Range<usize> {
        let end = |dimension: usize| self.ends.get(dimension).copied().map_or(0, usize::from);
        let dimension = dimension as usize;
        dimension.checked_sub(1).map_or(0, end)..end(dimension)
    }

    /// The cells of one dimension.
    pub(super) fn of_dimension(&self, dimension: Dimension) -> &[(Key, Cell)] {
        self.entries.get(self.range(dimension)).unwrap_or_default()
    }

    /// Where a cell is, or would be.
    pub(super) fn find(&self, dimension: Dimension, code: u32) -> Result<usize, usize> {
        let start = self.range(dimension).start;
        let key = Key::new(dimension, code);
        let found = self.of_dimension(dimension).binary_search_by_key(&key, |(key, _)| *key);
        found.map(|at| start + at).map_err(|at| start + at)
    }

    pub(super) fn at(&self, at: usize) -> Option<(Key, Cell)> {
        self.entries.get(at).copied()
    }

    pub(super) fn at_mut(&mut self, at: usize) -> Option<&mut Cell> {
        self.entries.get_mut(at).map(|(_, cell)| cell)
    }

    /// Puts an empty cell where [`Cells::find`] says that it would be.
    pub(super) fn insert(&mut self, at: usize, dimension: Dimension, code: u32) {
        self.entries.insert(at, (Key::new(dimension, code), Cell::default()));
        self.ends.iter_mut().skip(dimension as usize).for_each(|end| *end += 1);
    }
}

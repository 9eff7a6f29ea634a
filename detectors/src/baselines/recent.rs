//! The digests of an agent's latest events, to tell repeats.

use std::collections::VecDeque;

/// Most digests that an agent keeps.
const MOST: usize = 1_024;

/// The latest digests, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Recent {
    digests: VecDeque<u128>,
    /// Some bits of each: a search reads these, an eighth of all, and almost never more.
    tags: VecDeque<u16>,
}

impl Recent {
    /// Whether a digest is not among the latest; it is from here on.
    pub(super) fn is_new(&mut self, digest: u128) -> bool {
        let (front, back) = self.tags.as_slices();
        if self.holds(front, 0, digest) || self.holds(back, front.len(), digest) {
            return false;
        }
        if self.digests.len() >= MOST {
            self.digests.pop_front();
            self.tags.pop_front();
        }
        self.digests.push_back(digest);
        self.tags.push_back(tag(digest));
        true
    }

    /// Whether a digest is among those that have these tags, the first of which is the `start`-th.
    fn holds(&self, tags: &[u16], start: usize, digest: u128) -> bool {
        let tag = tag(digest);
        tags.chunks(64).enumerate().any(|(block, tags)| {
            // Without an early end inside a block, so that a block is compared at once.
            let has_tag = tags.iter().fold(false, |found, other| found | (*other == tag));
            has_tag && self.digests.range(start + block * 64..).take(tags.len()).any(|other| *other == digest)
        })
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = u128> {
        self.digests.iter().copied()
    }
}

impl FromIterator<u128> for Recent {
    fn from_iter<I: IntoIterator<Item = u128>>(digests: I) -> Self {
        let digests: VecDeque<u128> = digests.into_iter().collect();
        let tags = digests.iter().map(|digest| tag(*digest)).collect();
        Self { digests, tags }
    }
}

/// A digest is as good as random in every bit.
#[expect(clippy::cast_possible_truncation, reason = "these bits are as good as any")]
fn tag(digest: u128) -> u16 {
    digest as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_digests_are_known_and_older_ones_are_not() {
        let mut recent = Recent::default();
        // All have one tag.
        let digest = |number: usize| (number as u128 + 1) << 16;
        for number in 0..3 * MOST {
            assert!(recent.is_new(digest(number)));
            assert!(!recent.is_new(digest(number)));
            assert!(!recent.is_new(digest(number.saturating_sub(MOST - 1))), "{number}");
        }
        assert_eq!(recent.iter().count(), MOST);
        let again: Recent = recent.iter().collect();
        assert_eq!(again, recent);
        assert!(recent.is_new(digest(0)));
    }
}

//! Patterns with `*`, as registries and policies of the field use them.

use serde::Deserialize;

/// A pattern in which `*` stands for any run of characters, also an empty one. Everything else is literal and
/// case-sensitive.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Glob {
    /// The literal runs between the stars; one element means no star.
    parts: Vec<String>,
}

impl Glob {
    /// Compiles a pattern. Every text is a pattern.
    pub fn new(pattern: &str) -> Self {
        Self { parts: pattern.split('*').map(str::to_owned).collect() }
    }

    /// The text itself, when the pattern has no star.
    pub fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Whether the whole of `text` fits the pattern.
    pub fn matches(&self, text: &str) -> bool {
        let Some((first, rest)) = self.parts.split_first() else { return text.is_empty() };
        let Some((last, middle)) = rest.split_last() else { return text == first };
        // Nothing is not looked for: comparing it byte by byte is slow on some processors (see `facts.rs`).
        let mut tail = match first.as_str() {
            "" => text,
            first => match text.strip_prefix(first) {
                Some(tail) => tail,
                None => return false,
            },
        };
        for part in middle {
            match tail.split_once(part.as_str()) {
                Some((_, after)) => tail = after,
                None => return false,
            }
        }
        last.is_empty() || tail.ends_with(last.as_str())
    }

    /// Whether some text fits both patterns.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.to_string(), other.to_string());
        overlap(ours.as_bytes(), theirs.as_bytes())
    }
}

/// Whether two patterns fit a common text. Row by row over the first pattern; `reached` holds, for what has been read of
/// it, which prefixes of the second can have been read too.
fn overlap(ours: &[u8], theirs: &[u8]) -> bool {
    let free = |reached: &mut Vec<bool>| {
        // A star of the second pattern may stand for nothing.
        for (at, byte) in theirs.iter().enumerate() {
            let stays = *byte == b'*' && reached.get(at).copied().unwrap_or_default();
            if let (true, Some(next)) = (stays, reached.get_mut(at + 1)) {
                *next = true;
            }
        }
    };
    let mut reached = vec![false; theirs.len() + 1];
    if let Some(start) = reached.first_mut() {
        *start = true;
    }
    free(&mut reached);
    for our in ours {
        let mut after = vec![false; theirs.len() + 1];
        let mut swallowed = false;
        for (at, before) in reached.iter().enumerate() {
            let their = theirs.get(at);
            if *our == b'*' {
                // Our star stands for nothing, or for anything that they still have.
                swallowed |= before;
                set(&mut after, at, swallowed);
            } else if *before {
                match their {
                    Some(b'*') => set(&mut after, at, true),
                    Some(byte) if byte == our => set(&mut after, at + 1, true),
                    _ => {}
                }
            }
        }
        free(&mut after);
        reached = after;
    }
    reached.last().copied().unwrap_or_default()
}

fn set(reached: &mut [bool], at: usize, value: bool) {
    if let Some(cell) = reached.get_mut(at) {
        *cell |= value;
    }
}

impl From<String> for Glob {
    fn from(pattern: String) -> Self {
        Self::new(&pattern)
    }
}

impl std::fmt::Display for Glob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.parts.join("*"))
    }
}

/// Whether any of the patterns fits.
pub fn any(patterns: &[Glob], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(text))
}

#[cfg(test)]
mod tests {
    use super::Glob;

    #[test]
    fn patterns_overlap_where_a_text_fits_both() {
        for (ours, theirs, overlap) in [
            ("a", "a", true),
            ("a", "b", false),
            ("*", "", true),
            ("*-bot", "deploy-*", true),
            ("role/a-*", "role/b-*", false),
            ("*x", "x*", true),
            ("a*c", "ab", false),
            ("a*b*c", "*d*", true),
            ("arn:*:role/x", "arn:aws:iam::1:role/x", true),
            ("arn:*:role/x", "arn:aws:iam::1:role/y", false),
        ] {
            assert_eq!(Glob::new(ours).overlaps(&Glob::new(theirs)), overlap, "{ours} ~ {theirs}");
            assert_eq!(Glob::new(theirs).overlaps(&Glob::new(ours)), overlap, "{theirs} ~ {ours}");
        }
    }

    #[test]
    fn stars_stand_for_any_run() {
        for (pattern, text, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("arn:*:role/deploy-*", "arn:aws:iam::1:role/deploy-eu", true),
            ("arn:*:role/deploy-*", "arn:aws:iam::1:user/deploy-eu", false),
            ("*a*b*", "xaxxbx", true),
            ("*a*b*", "xbxxax", false),
            ("ab*ba", "aba", false),
            ("a**c", "abc", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), fits, "{pattern} ~ {text}");
        }
    }
}

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
        let Some(mut tail) = text.strip_prefix(first.as_str()) else { return false };
        for part in middle {
            match tail.split_once(part.as_str()) {
                Some((_, after)) => tail = after,
                None => return false,
            }
        }
        tail.ends_with(last.as_str())
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

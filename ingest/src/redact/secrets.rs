//! What a secret looks like.
//!
//! Kinds with a form of their own are a table: literals that every one of them contains, by which most texts are passed
//! over at once, and an expression that is only asked where one of its literals was found. What has no form is known by the
//! name that stands before it (`password=…`), and AWS's secret keys by their length and mixture. The forms are those that
//! their issuers document for secret scanning.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, packed};
use regex::Regex;

/// A stretch of a text that is a secret, and of which kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found<'k> {
    pub(super) range: Range<usize>,
    pub(super) kind: &'k str,
}

/// Secrets of one kind.
struct Form {
    kind: &'static str,
    /// In lower case. Whatever the expression finds contains one of them, in any case.
    literals: &'static [&'static str],
    /// The secret is its group `s`, or all of it.
    expression: &'static str,
    /// What the expression finds and still must be.
    check: fn(&str) -> bool,
}

const fn form(kind: &'static str, literals: &'static [&'static str], expression: &'static str) -> Form {
    Form { kind, literals, expression, check: |_| true }
}

impl Form {
    const fn only(self, check: fn(&str) -> bool) -> Self {
        Form { check, ..self }
    }
}

/// Cut ones count: a value that is too long is kept in part.
const FORMS: [Form; 22] = [
    form(
        "private-key",
        &["-----begin"],
        r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z)",
    ),
    form("jwt", &["eyj"], r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)+"),
    form(
        "github-token",
        &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"],
        "gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,}",
    ),
    form("gitlab-token", &["glpat-", "gldt-", "glrt-", "glcbt-"], r"gl(?:pat|dt|rt|cbt)-[A-Za-z0-9_.-]{16,}"),
    form("slack-token", &["xox", "xapp-"], r"(?:xox[a-z](?:\.xox[a-z])?|xapp)-[A-Za-z0-9-]{10,}"),
    form("slack-token", &["slack.com/services/"], r"slack\.com/services/(?P<s>[A-Za-z0-9/_-]{16,})"),
    form(
        "google-key",
        &["aiza", "ya29.", "gocspx-"],
        r"AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_.-]{16,}|GOCSPX-[A-Za-z0-9_-]{16,}",
    ),
    form(
        "stripe-key",
        &["k_live_", "k_test_", "whsec_"],
        "[sr]k_(?:live|test)_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9+/=]{16,}",
    ),
    // OpenAI, Anthropic and their like.
    form("api-key", &["sk-"], r"(?:^|[^A-Za-z0-9])(?P<s>sk-[A-Za-z0-9_-]{20,})").only(is_mixed),
    form("npm-token", &["npm_"], "npm_[A-Za-z0-9]{30,}"),
    form("pypi-token", &["pypi-"], "pypi-[A-Za-z0-9_-]{32,}"),
    form("hugging-face-token", &["hf_"], "hf_[A-Za-z0-9]{30,}"),
    form("sendgrid-key", &["sg."], r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
    form("vault-token", &["hvs.", "hvb.", "hvr."], r"hv[sbr]\.[A-Za-z0-9_-]{20,}"),
    form("digitalocean-token", &["_v1_"], "do[opr]_v1_[a-f0-9]{32,}"),
    form("databricks-token", &["dapi"], "dapi[a-f0-9]{32}"),
    form("docker-token", &["dckr_"], "dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}"),
    form("age-key", &["age-secret-key-1"], "(?i)AGE-SECRET-KEY-1[A-Z0-9]{30,}"),
    form("azure-secret", &["8q~"], r"[A-Za-z0-9_~.-]{3}8Q~[A-Za-z0-9_~.-]{30,34}"),
    form("aws-token", &["fwogzxivyxdz", "iqojb3jpz2lu"], "(?:FwoGZXIvYXdz|IQoJb3JpZ2lu)[A-Za-z0-9+/=_%-]{20,}"),
    form("credentials", &["bearer", "basic"], r"(?i)\b(?:bearer|basic)[\s:]+(?P<s>[A-Za-z0-9+/=_.~-]{4,})")
        .only(is_no_word),
    form("credentials", &["curl"], r#"\s(?:-u|--user)[\s=]*["']?[^\s:"']*:(?P<s>[^\s"']+)"#),
];

/// Passwords in URLs. No literal tells them: URLs are everywhere, and so is `@`.
const URL_FORMS: [Form; 2] = [
    form("password", &[], r#"//[^\s/?#@:"'<>\\]*:(?P<s>[^\s/?#"'<>\\]+)@"#),
    // One that should have been escaped. After a port comes no `@` that ends a password.
    form("password", &[], r#"//[^\s/?#@:"'<>\\]*:(?P<s>[^\s"'<>\\@]*[/?#][^\s"'<>\\@]*)@"#).only(is_no_port),
];

/// In every text in which something of a secret's name stands before it.
const NAMING: [&str; 30] = [
    "pass",
    "pwd",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "accesskey",
    "access_key",
    "access-key",
    "accountkey",
    "account_key",
    "account-key",
    "subscriptionkey",
    "subscription_key",
    "subscription-key",
    "private",
    "authorization",
    "credentials",
    "cookie",
    "sig=",
    "sig\"",
    "sig\n",
    "signature",
    "connection",
    "signing",
    "userdata",
    "user_data",
    "user-data",
    "customdata",
];

/// What a name ends with before whose value there is no doubt; without case and punctuation.
pub(super) const NAMES: [&str; 35] = [
    "password",
    "passwords",
    "passwd",
    "pwd",
    "passphrase",
    "passcode",
    "secret",
    "secretkey",
    "secretaccesskey",
    "secretstring",
    "secretbinary",
    "secretvalue",
    "token",
    "tokencode",
    "apikey",
    "accesskey",
    "accountkey",
    "subscriptionkey",
    "privatekey",
    "privatekeypem",
    "signingkey",
    "sharedaccesskey",
    "authorization",
    "credentials",
    "cookie",
    "setcookie",
    "connectionstring",
    "userdata",
    "customdata",
    "connectionuri",
    "connectionurl",
    "sig",
    "signature",
    "apisecret",
    "clientsecret",
];

/// What ends like one of them and is none: tokens that page through a list or make a request idempotent.
const HARMLESS: [&str; 14] = [
    "nexttoken",
    "pagetoken",
    "continuationtoken",
    "continuetoken",
    "paginationtoken",
    "clienttoken",
    "requesttoken",
    "idempotencytoken",
    "synctoken",
    "changetoken",
    "startingtoken",
    "starttoken",
    "maxtoken",
    "cursortoken",
];

/// What also stands before a colon that separates no name from its value (`secret:GetValue`).
const AMBIGUOUS: [&str; 5] = ["secret", "token", "credentials", "cookie", "signature"];

/// Schemes that stand between `authorization` and what authorises.
const SCHEMES: [&str; 6] = ["bearer", "basic", "digest", "negotiate", "token", "apikey"];

struct Table {
    literals: Literals,
    expressions: Vec<Option<Regex>>,
    urls: Vec<Option<Regex>>,
    /// A name and what separates it from its value.
    named: Option<Regex>,
    /// What is percent-encoded, to its ends.
    encoded: Option<Regex>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let named = r#"(?P<name>[A-Za-z][A-Za-z0-9_.-]{1,63})(?:["'\\]*\s*(?:=>|:=|[:=])\s*|\s+(?:is|was)\s+|\s+)"#;
    Table {
        literals: Literals::new(),
        expressions: FORMS.iter().map(|form| Regex::new(form.expression).ok()).collect(),
        urls: URL_FORMS.iter().map(|form| Regex::new(form.expression).ok()).collect(),
        named: Regex::new(named).ok(),
        encoded: Regex::new(r"[\p{L}\p{N}._~+-]*(?:%[0-9A-Fa-f]{2}[\p{L}\p{N}._~+-]*)+").ok(),
    }
});

/// All literals, and what finds them.
struct Literals {
    all: Vec<&'static str>,
    /// With vector instructions, where the machine has those that it takes.
    packed: Option<packed::Searcher>,
    automaton: Option<AhoCorasick>,
}

impl Literals {
    fn new() -> Self {
        let mut all: Vec<&str> = FORMS.iter().flat_map(|form| form.literals).copied().chain(NAMING).collect();
        all.sort_unstable();
        all.dedup();
        let packed = packed::Config::new().builder().extend(&all).build();
        let automaton = if packed.is_none() { AhoCorasick::new(&all).ok() } else { None };
        Self { all, packed, automaton }
    }

    /// Where the first one begins, and which it is.
    fn first(&self, lower: &[u8]) -> Option<(usize, &'static str)> {
        let found = match (&self.packed, &self.automaton) {
            (Some(packed), _) => packed.find(lower),
            (None, automaton) => automaton.as_ref().and_then(|automaton| automaton.find(lower)),
        }?;
        Some((found.start(), self.all.get(found.pattern().as_usize())?))
    }
}

/// Whether a text in lower case may hold a secret, as far as literals go.
pub(super) fn may_hold(lower: &[u8]) -> bool {
    TABLE.literals.first(lower).is_some() || may_hold_url_password(lower)
}

/// Whether behind a `//` stand a colon and an `@` in one word.
fn may_hold_url_password(text: &[u8]) -> bool {
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"\"'<>\\".contains(byte);
    let is_at = |byte: &u8| *byte == b'@';
    text.contains(&b'@')
        && text.split(ends).any(|word| {
            let before = word.iter().rposition(is_at).and_then(|at| word.get(..at)).unwrap_or_default();
            let authority = before.windows(2).position(|pair| pair == b"//").and_then(|at| before.get(at + 2..));
            authority.is_some_and(|authority| authority.contains(&b':'))
        })
}

/// All secrets of a text, in order, none within another.
pub(super) fn find(text: &str) -> Vec<Found<'static>> {
    let mut found = Vec::new();
    let literals = literals(&text.to_ascii_lowercase());
    let has = |wanted: &[&str]| wanted.iter().any(|literal| literals.contains(literal));
    for (form, expression) in FORMS.iter().zip(&TABLE.expressions).filter(|(form, _)| has(form.literals)) {
        matches(form, expression.as_ref(), text, &mut found);
    }
    if may_hold_url_password(text.as_bytes()) {
        let forms = URL_FORMS.iter().zip(&TABLE.urls);
        forms.for_each(|(form, expression)| matches(form, expression.as_ref(), text, &mut found));
    }
    if has(&NAMING) {
        named(text, &mut found);
    }
    found.extend(mixed_run(text).map(|range| Found { range, kind: "aws-secret-key" }));
    found.sort_by_key(|found| (found.range.start, usize::MAX - found.range.end));
    let mut end = 0;
    found.retain(|found| {
        let is_outside = found.range.start >= end;
        end = end.max(found.range.end);
        is_outside
    });
    found
}

/// The literals that a text in lower case has; one may overlap another.
fn literals(lower: &str) -> Vec<&'static str> {
    let mut literals = Vec::new();
    let mut from = 0;
    while let Some((at, literal)) = lower.as_bytes().get(from..).and_then(|rest| TABLE.literals.first(rest)) {
        if !literals.contains(&literal) {
            literals.push(literal);
        }
        from += at + 1;
    }
    literals
}

fn matches(form: &Form, expression: Option<&Regex>, text: &str, found: &mut Vec<Found<'static>>) {
    let Some(expression) = expression else { return };
    for captures in expression.captures_iter(text) {
        let secret = captures.name("s").or_else(|| captures.get(0));
        let secret = secret.filter(|secret| (form.check)(secret.as_str()));
        found.extend(secret.map(|secret| Found { range: secret.range(), kind: form.kind }));
    }
}

/// Whether a name says that its value is a secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    let plain = plain(name);
    let plain = plain.as_str();
    let is_named = NAMES.iter().any(|ending| plain.ends_with(ending)) || is_pass(name);
    is_named && !HARMLESS.iter().any(|ending| plain.ends_with(ending))
}

/// Whether the last word of a name is `pass` (`DB_PASS`, `smtpPass`, but not `bypass`).
fn is_pass(name: &str) -> bool {
    let last = name.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    last.eq_ignore_ascii_case("pass") || last.ends_with("Pass")
}

/// The kind of secret that a name stands before.
pub(super) fn kind(name: &str) -> &'static str {
    match plain(name) {
        name if name.contains("pass") || name.ends_with("pwd") => "password",
        name if name.ends_with("token") => "token",
        _ => "secret",
    }
}

fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// The values behind names that say so: `password=…`, `"token": "…"`, `--api-key …`, `the password is …`.
fn named(text: &str, found: &mut Vec<Found<'static>>) {
    let Some(expression) = &TABLE.named else { return };
    let mut from = 0;
    while let Some(captures) = text.get(from..).and_then(|rest| expression.captures(rest)) {
        let (Some(whole), Some(name)) = (captures.get(0), captures.name("name")) else { return };
        let start = from + name.start();
        // What separates this name from its value may belong to the next name.
        from += name.end();
        if !is_secret_name(name.as_str()) || !separates(text, start, name.as_str(), whole.as_str()) {
            continue;
        }
        let value = value(text, start + whole.len());
        let said = text.get(value.clone()).unwrap_or_default();
        // What a password is or was may be only that it is wrong.
        let is_sentence = [" is", " was"].iter().any(|verb| whole.as_str().trim_end().ends_with(verb));
        if !says_something(said) || is_sentence && !is_no_word(said) {
            continue;
        }
        from = value.end;
        found.push(Found { range: value, kind: kind(name.as_str()) });
    }
}

/// Whether what stands behind a secret's name separates it from its value.
fn separates(text: &str, start: usize, name: &str, whole: &str) -> bool {
    let before = text.get(..start).unwrap_or_default();
    let separator = whole.get(name.len()..).unwrap_or_default();
    let sign = separator.trim().trim_start_matches(['"', '\'', '\\']).trim();
    match sign {
        "" => before.ends_with("--"),
        "is" | "was" => plain(name).contains("pass"),
        // A part of an ARN or a path is no name.
        _ if sign.starts_with(':') && before.ends_with([':', '/']) => false,
        ":" if separator == ":" => !AMBIGUOUS.contains(&plain(name).as_str()),
        _ => true,
    }
}

/// The value that begins at a place: up to its closing quote or bracket, else its word; a cut one goes to the end.
fn value(text: &str, from: usize) -> Range<usize> {
    let rest = text.get(from..).unwrap_or_default();
    let (quote, inside) = match rest.as_bytes() {
        [b'\\', b'"', ..] => ("\\\"", 2),
        [b'"', ..] => ("\"", 1),
        [b'\'', ..] => ("'", 1),
        [b'{' | b'[', ..] if !rest.starts_with("[redacted:") => return from..from + balanced(rest),
        _ => return from..from + word(rest),
    };
    let begin = from + inside;
    let within = text.get(begin..).unwrap_or_default();
    begin..begin + closing(within, quote)
}

fn closing(text: &str, quote: &str) -> usize {
    let ends = text.match_indices(quote).map(|(at, _)| at);
    let is_escaped = |at: usize| {
        let before = text.get(..at).unwrap_or_default();
        quote.len() == 1 && (before.len() - before.trim_end_matches('\\').len()) % 2 == 1
    };
    ends.into_iter().find(|at| !is_escaped(*at)).unwrap_or(text.len())
}

fn balanced(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 1 => return at + 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    text.len()
}

fn word(text: &str) -> usize {
    let is_end =
        |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ';' | '&' | ')' | '}' | ']' | '\\' | '`');
    let end = text.find(is_end).unwrap_or(text.len());
    let first = text.get(..end).unwrap_or_default().to_ascii_lowercase();
    let rest = text.get(end..).unwrap_or_default();
    let skipped = rest.len() - rest.trim_start().len();
    if SCHEMES.contains(&first.as_str()) && skipped > 0 {
        let next = rest.trim_start();
        return end + skipped + next.find(is_end).unwrap_or(next.len());
    }
    end
}

/// The stretches of a text that are percent-encoded.
pub(super) fn percent_encoded(text: &str) -> impl Iterator<Item = Range<usize>> {
    let encoded = TABLE.encoded.as_ref().filter(|_| text.contains('%'));
    encoded.into_iter().flat_map(|expression| expression.find_iter(text).map(|found| found.range()))
}

/// Whether a value is more than a mark that there is none.
fn says_something(value: &str) -> bool {
    !value.starts_with("[redacted:")
        && !["null", "none", "true", "false"].iter().any(|word| value.eq_ignore_ascii_case(word))
        && value.chars().any(char::is_alphanumeric)
}

/// Upper and lower case and digits.
fn is_mixed(text: &str) -> bool {
    let has = |is: fn(&u8) -> bool| text.bytes().any(|byte| is(&byte));
    has(u8::is_ascii_digit) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase)
}

/// Not a word of a sentence: a digit, padding, or a capital letter within.
fn is_no_word(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit() || byte == b'=')
        || text.bytes().skip(1).any(|b| b.is_ascii_uppercase())
}

fn is_no_port(text: &str) -> bool {
    !text.split(['/', '?', '#']).next().is_some_and(|port| port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()))
}

/// How long AWS's secret access keys are.
const AWS_SECRET: usize = 40;
/// How often, at least, the kind of character changes within one. Of random ones, one in a thousand has fewer; names
/// and paths change far less often.
const LEAST_CHANGES: usize = 15;

/// Whether any text holds what may be one of AWS's secret access keys.
pub(super) fn has_mixed_run(text: &str) -> bool {
    text.len() >= AWS_SECRET && mixed_run(text).next().is_some()
}

/// The stretches of exactly 40 characters of base64 that are mixed as only random ones are. A slash may be one of them, or
/// stand before and behind.
fn mixed_run(text: &str) -> impl Iterator<Item = Range<usize>> {
    base64_runs(text.as_bytes()).flat_map(move |(start, run)| {
        let parts = run.split(|byte| *byte == b'/').scan(start, |next, part| {
            let start = *next;
            *next += part.len() + 1;
            Some((start, part))
        });
        let is_key = |(_, part): &(usize, &[u8])| part.len() == AWS_SECRET && is_random(part);
        std::iter::once((start, run)).chain(parts).filter(is_key).map(|(start, part)| start..start + part.len())
    })
}

/// The longest stretches of base64 that are long enough for a key, and where they begin.
fn base64_runs(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            // From the end: whatever cannot be in a key is a reason to go on behind it.
            let window = bytes.get(from..from + AWS_SECRET)?;
            if let Some(breaks) = window.iter().rposition(|byte| !is_base64(*byte)) {
                from += breaks + 1;
                continue;
            }
            let rest = bytes.get(from..)?;
            let length = rest.iter().take_while(|byte| is_base64(**byte)).count();
            let start = from;
            from += length;
            return Some((start, rest.get(..length)?));
        }
    })
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

fn is_random(run: &[u8]) -> bool {
    let class = |byte: &u8| match byte {
        b'a'..=b'z' => 0,
        b'A'..=b'Z' => 1,
        b'0'..=b'9' => 2,
        _ => 3,
    };
    let changes = run.iter().zip(run.iter().skip(1)).filter(|(one, next)| class(one) != class(next)).count();
    changes >= LEAST_CHANGES && [0, 1, 2].iter().all(|wanted| run.iter().any(|byte| class(byte) == *wanted))
}

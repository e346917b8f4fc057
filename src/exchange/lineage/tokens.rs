//! What in a request could name it: values of high entropy, and their keyed hashes.
//!
//! A *token* is a value that two requests do not share by accident: a UUID, at least 16 hex digits, at least 12 letters
//! and digits well mixed, or a decimal number of at least 8 digits that is no date, no time and not round. Words, dates,
//! versions and small numbers are not. A missed token costs an `unknown`; a false one could cost a wrong parent, so
//! everything in doubt is no token. What is still shared (a key of the service, a user's session) is found out by
//! [`super::sightings`].
//!
//! Every function here is total and takes time linear in the length of its input, which is bounded.

use std::hash::{BuildHasher, Hasher, RandomState};

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};

use super::{LineageRules, Method, Seen, json};

/// Values kept per request; more are counted and not kept.
pub(super) const MAX_VALUES: usize = 32;

/// Longest path segment or query value that is looked at, in bytes as sent. Longer ones are data, not names.
const MAX_PART_BYTES: usize = 512;

/// Most bytes of a path, and of a query, that are looked at.
const MAX_TARGET_BYTES: usize = 8 * 1024;

/// Longest header value or cookie that is looked at, in bytes.
const MAX_HEADER_BYTES: usize = 8 * 1024;

/// Keyed hashes of values. The key is drawn when the process starts and never leaves it.
#[derive(Debug, Default)]
pub(super) struct Keys(RandomState);

/// What kind of thing a hash stands for: equal texts of different kinds have different hashes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Token = 0,
    Correlation = 1,
    Identity = 2,
    Trace = 3,
    Destination = 4,
    Shape = 5,
}

impl Keys {
    /// The hash of `bytes` as they are.
    pub(super) fn hash(&self, kind: Kind, bytes: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write_u8(kind as u8);
        hasher.write(bytes);
        hasher.finish()
    }

    fn token(&self, token: Token<'_>) -> u64 {
        match token {
            Token::Exact(bytes) => self.hash(Kind::Token, bytes),
            // A UUID is the same with and without dashes, in capitals and in small letters; so is a number in hex.
            Token::Hex(bytes) => {
                let mut folded = [0; 128];
                let mut length = 0;
                for byte in bytes.iter().filter(|byte| **byte != b'-').take(folded.len()) {
                    folded[length] = byte.to_ascii_lowercase();
                    length += 1;
                }
                self.hash(Kind::Token, &folded[..length])
            }
        }
    }
}

/// Where in a call a value stood, for the statistics of what an app forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Path, query or body.
    Elsewhere,
    /// A correlation header.
    Correlation,
    /// `rules.identity_headers[_]`.
    Identity(u8),
    /// `rules.token_headers[_]`.
    Header(u8),
}

/// A few hashes, without repetition, each with its source.
#[derive(Debug)]
pub(super) struct Values {
    hashes: [u64; MAX_VALUES],
    sources: [Source; MAX_VALUES],
    length: usize,
    /// Values that had no room.
    pub dropped: u64,
}

impl Default for Values {
    fn default() -> Self {
        Self { hashes: [0; MAX_VALUES], sources: [Source::Elsewhere; MAX_VALUES], length: 0, dropped: 0 }
    }
}

impl Values {
    pub(super) fn push(&mut self, hash: u64, source: Source) {
        if self.as_slice().contains(&hash) {
            return;
        }
        if self.length == MAX_VALUES {
            self.dropped += 1;
            return;
        }
        self.hashes[self.length] = hash;
        self.sources[self.length] = source;
        self.length += 1;
    }

    pub(super) fn as_slice(&self) -> &[u64] {
        &self.hashes[..self.length]
    }

    pub(super) fn with_sources(&self) -> impl Iterator<Item = (u64, Source)> + '_ {
        self.as_slice().iter().copied().zip(self.sources)
    }
}

/// Everything in a request that could name it.
#[derive(Debug)]
pub(super) struct Gathered {
    /// Correlation id and identity headers, of any entropy: they match their own kind only.
    pub identities: Values,
    /// Values of high entropy, wherever they stood.
    pub tokens: Values,
    /// The path with everything that varies taken out.
    pub shape: u64,
}

impl Gathered {
    /// Hashes what `seen` carries. The correlation id of an inbound exchange (`inbound`) is also a token, since an app may
    /// send it on under another name.
    pub(super) fn of(
        keys: &Keys,
        rules: &LineageRules,
        seen: &Seen<'_>,
        body: Option<&[u8]>,
        inbound: bool,
    ) -> Self {
        let mut identities = Values::default();
        let mut tokens = Values::default();
        let by_correlation = rules.uses(Method::Correlation);
        let by_token = rules.uses(Method::Token);
        if by_correlation {
            if let Some(id) = seen.correlation {
                identities.push(keys.hash(Kind::Correlation, id), Source::Correlation);
            }
            for (at, name) in rules.identity_headers.iter().enumerate().take(u8::MAX.into()) {
                for value in seen.headers.get_all(name) {
                    // The name is part of what is compared: tenant 7 is not user 7.
                    let hash = keys.hash(Kind::Identity, name.as_str().as_bytes());
                    let hash = hash ^ keys.hash(Kind::Identity, value.as_bytes()).rotate_left(1);
                    identities.push(hash, Source::Identity(at as u8));
                }
            }
        }
        let mut shape = keys.0.build_hasher();
        shape.write_u8(Kind::Shape as u8);
        let path = &seen.path.as_bytes()[..seen.path.len().min(MAX_TARGET_BYTES)];
        for segment in path.split(|byte| *byte == b'/') {
            let mut varies = segment.iter().any(u8::is_ascii_digit);
            if by_token {
                decoded(segment, false, |value| {
                    each_token(value, &mut |token| {
                        varies = true;
                        tokens.push(keys.token(token), Source::Elsewhere);
                    });
                });
            }
            shape.write(if varies { b"{}" } else { segment });
            shape.write_u8(b'/');
        }
        if by_token {
            gather_tokens(keys, rules, seen, body, &mut tokens);
            if let (true, Some(id)) = (inbound, seen.correlation) {
                whole_token(id, &mut |token| tokens.push(keys.token(token), Source::Elsewhere));
            }
        }
        Self { identities, tokens, shape: shape.finish() }
    }
}

fn gather_tokens(
    keys: &Keys,
    rules: &LineageRules,
    seen: &Seen<'_>,
    body: Option<&[u8]>,
    tokens: &mut Values,
) {
    let query = seen.query.unwrap_or_default().as_bytes();
    for pair in query[..query.len().min(MAX_TARGET_BYTES)].split(|byte| matches!(byte, b'&' | b';')) {
        // A lone name is a value too: `?550e8400-…`.
        let value = pair.iter().position(|byte| *byte == b'=').map_or(pair, |at| &pair[at + 1..]);
        decoded(value, true, |value| {
            each_token(value, &mut |token| tokens.push(keys.token(token), Source::Elsewhere));
        });
    }
    for (at, name) in rules.token_headers.iter().enumerate().take(u8::MAX.into()) {
        header_tokens(seen.headers, name, &mut |token| {
            tokens.push(keys.token(token), Source::Header(at as u8));
        });
    }
    if let Some(body) = body {
        body_tokens(keys, rules, body, tokens);
    }
}

/// Adds the tokens in the chosen JSON fields of (the beginning of) a body.
pub(super) fn body_tokens(keys: &Keys, rules: &LineageRules, prefix: &[u8], tokens: &mut Values) {
    if rules.json_fields.is_empty() || !rules.uses(Method::Token) {
        return;
    }
    json::each_value(&rules.json_fields, prefix, &mut |value| {
        if value.len() <= MAX_PART_BYTES {
            each_token(value, &mut |token| tokens.push(keys.token(token), Source::Elsewhere));
        }
    });
}

fn header_tokens(headers: &HeaderMap, name: &http::HeaderName, emit: &mut impl FnMut(Token<'_>)) {
    for line in headers.get_all(name) {
        let line = line.as_bytes();
        if line.len() > MAX_HEADER_BYTES {
            continue;
        }
        if *name == COOKIE {
            for pair in line.split(|byte| *byte == b';') {
                if let Some(at) = pair.iter().position(|byte| *byte == b'=') {
                    whole_token(pair[at + 1..].trim_ascii(), emit);
                }
            }
        } else if *name == AUTHORIZATION {
            let line = line.trim_ascii();
            let scheme = line.iter().position(|byte| *byte == b' ');
            whole_token(scheme.map_or(line, |at| line[at + 1..].trim_ascii()), emit);
        } else {
            whole_token(line.trim_ascii(), emit);
        }
    }
}

/// A value of high entropy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// Compared byte for byte.
    Exact(&'a [u8]),
    /// Hex digits, and dashes if it is a UUID: compared without case and dashes.
    Hex(&'a [u8]),
}

/// Percent-decodes one path segment or query value (there, `+` is a space) and shows it. One that is too long is not shown.
fn decoded(value: &[u8], query: bool, show: impl FnOnce(&[u8])) {
    if value.len() < 8 || value.len() > MAX_PART_BYTES {
        return;
    }
    if !value.iter().any(|byte| *byte == b'%' || (query && *byte == b'+')) {
        return show(value);
    }
    let mut plain = [0; MAX_PART_BYTES];
    let mut length = 0;
    let mut rest = value;
    while let Some((first, others)) = rest.split_first() {
        let hex = |at: usize| others.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        (plain[length], rest) = match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => ((high * 16 + low) as u8, &others[2..]),
            (b'+', ..) if query => (b' ', others),
            _ => (*first, others),
        };
        length += 1;
    }
    show(&plain[..length]);
}

/// A value that is one name as a whole (a cookie, a credential): one token, if anything in it is of high entropy. If only
/// one part of it is, that part stands for it, so that `Bearer <uuid>` and `/sessions/<uuid>` are the same.
fn whole_token<'a>(value: &'a [u8], emit: &mut impl FnMut(Token<'a>)) {
    let mut found = None;
    let mut several = false;
    each_token(value, &mut |token| {
        several |= found.is_some();
        found = Some(token);
    });
    match found {
        Some(_) if several => emit(Token::Exact(value)),
        Some(token) => emit(token),
        None => {}
    }
}

/// Finds the tokens in a decoded value.
///
/// It is cut at everything but letters, digits, `-`, `_` and `.`; what then looks like a number, a version or an address
/// of digits and dots is left alone, and the rest is cut at the dots.
pub(super) fn each_token<'a>(value: &'a [u8], emit: &mut impl FnMut(Token<'a>)) {
    for piece in value.split(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))) {
        let dots = piece.contains(&b'.');
        if dots && piece.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-')) {
            continue;
        }
        for part in piece.split(|byte| *byte == b'.') {
            part_tokens(part, emit);
        }
    }
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b'-' | b'_')
}

fn part_tokens<'a>(part: &'a [u8], emit: &mut impl FnMut(Token<'a>)) {
    if part.len() < 8 {
        return;
    }
    if !part.iter().any(|byte| is_separator(*byte)) {
        if let Some(token) = token(part) {
            emit(token);
        }
        return;
    }
    let mut rest = part;
    while let Some(at) = uuid_at(rest) {
        part_without_uuid(&rest[..at], emit);
        emit(Token::Hex(&rest[at..at + 36]));
        rest = &rest[at + 36..];
    }
    part_without_uuid(rest, emit);
}

fn part_without_uuid<'a>(part: &'a [u8], emit: &mut impl FnMut(Token<'a>)) {
    let mut found = false;
    for piece in part.split(|byte| is_separator(*byte)) {
        if let Some(token) = token(piece) {
            found = true;
            emit(token);
        }
    }
    // base64url has a separator now and then; names of many words (`eu-west-1a-prod-2b`) have many.
    let separators = part.iter().filter(|byte| is_separator(**byte)).count();
    if !found && part.len() - separators >= 16 && separators <= 1 + part.len() / 16 && mixed(part) {
        emit(Token::Exact(part));
    }
}

/// Where a UUID begins that is no part of a longer word.
fn uuid_at(part: &[u8]) -> Option<usize> {
    let last = part.len().checked_sub(36)?;
    (0..=last).find(|&at| {
        let text = &part[at..at + 36];
        let dash = |place: usize| matches!(place, 8 | 13 | 18 | 23);
        (at == 0 || is_separator(part[at - 1]))
            && part.get(at + 36).is_none_or(|byte| is_separator(*byte))
            && text.iter().enumerate().all(
                |(place, byte)| {
                    if dash(place) { *byte == b'-' } else { byte.is_ascii_hexdigit() }
                },
            )
            && distinct(text) > 6
    })
}

/// Judges one run of letters and digits.
fn token(word: &[u8]) -> Option<Token<'_>> {
    if word.len() < 8 || word.len() > MAX_PART_BYTES {
        return None;
    }
    if word.iter().all(u8::is_ascii_digit) {
        return long_decimal(word).then_some(Token::Exact(word));
    }
    if word.len() >= 16 && word.iter().all(u8::is_ascii_hexdigit) {
        // Zeros in front fill up what is shorter.
        return (distinct(word) >= 6 && significant(word).len() >= 12).then_some(Token::Hex(word));
    }
    (word.len() >= 12 && mixed(word)).then_some(Token::Exact(word))
}

/// Whether letters and digits are mixed as chance mixes them. Names that people give (`application2024`,
/// `getUserProfile2`) consist of few words and numbers; a word and a capital before it are one run.
fn mixed(word: &[u8]) -> bool {
    let (mut letters, mut digits, mut runs) = (0, 0, 0);
    let mut before = b' ';
    for byte in word.iter().copied() {
        let begins = match byte {
            b'0'..=b'9' => !before.is_ascii_digit(),
            b'a'..=b'z' => !before.is_ascii_alphabetic(),
            b'A'..=b'Z' => !before.is_ascii_uppercase(),
            _ => false,
        };
        runs += usize::from(begins);
        letters += usize::from(byte.is_ascii_alphabetic());
        digits += usize::from(byte.is_ascii_digit());
        before = byte;
    }
    letters >= 2 && digits >= 2 && distinct(word) >= 6 && (letters + digits) * 5 < runs * 16
}

fn significant(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    &digits[zeros..]
}

fn distinct(word: &[u8]) -> u32 {
    let mut seen = 0_u128;
    for byte in word {
        seen |= 1 << (byte.to_ascii_lowercase() & 0x7F);
    }
    seen.count_ones()
}

/// Whether a decimal number could only be a name: not a date, not a time, not round, not the largest of its type.
fn long_decimal(digits: &[u8]) -> bool {
    let number = |digits: &[u8]| {
        digits.iter().fold(0_u128, |sum, digit| sum.saturating_mul(10).saturating_add((digit - b'0').into()))
    };
    if digits.len() > 38 || significant(digits).len() < 8 || distinct(digits) < 4 {
        return false;
    }
    // 20261120, 20112026, and with a time of day behind it.
    if matches!(digits.len(), 8 | 10 | 12 | 14 | 17) {
        let year = |at: usize| (1900..2100).contains(&number(&digits[at..at + 4]));
        let month = |at: usize| (1..=12).contains(&number(&digits[at..at + 2]));
        let day = |at: usize| (1..=31).contains(&number(&digits[at..at + 2]));
        if (year(0) && month(4) && day(6))
            || (digits.len() == 8 && year(4) && ((day(0) && month(2)) || (month(0) && day(2))))
        {
            return false;
        }
    }
    let value = number(digits);
    // Seconds since 1970, and their thousandths down to nanoseconds, from 2010 to 2040.
    let seconds = match digits.len() {
        10 => value,
        13 => value / 1_000,
        16 => value / 1_000_000,
        19 => value / 1_000_000_000,
        _ => 0,
    };
    if (1_262_304_000..2_208_988_800).contains(&seconds) {
        return false;
    }
    let round = value.is_multiple_of(1_000) || value.is_multiple_of(1 << 16);
    let limit = value.is_power_of_two() || (value + 1).is_power_of_two();
    !round && !limit
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(value: &str) -> Vec<String> {
        let mut found = Vec::new();
        decoded(value.as_bytes(), true, |value| {
            each_token(value, &mut |token| {
                let (Token::Exact(bytes) | Token::Hex(bytes)) = token;
                found.push(String::from_utf8_lossy(bytes).into_owned());
            });
        });
        found
    }

    #[test]
    fn ids_that_machines_make_are_tokens() {
        for id in [
            "550e8400-e29b-41d4-a716-446655440000",
            "550E8400-E29B-41D4-A716-446655440000",
            "550e8400e29b41d4a716446655440000",
            "4bf92f3577b34da6",
            "507f1f77bcf86cd799439011",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "cjld2cjxh0000qzrmn831i7rn",
            "k3J9x2Lm7Qp4",
            "0ujtsYcgvSTl8PAuAdqWYSMnLOv",
            "dBjftJeZ4CVPmB92K27uhbUJU1p1rwW1gFWFOEjXk",
            "48291735",
            "9007199254740997",
            "4915112345678",
            "000048291735",
        ] {
            assert_eq!(tokens(id), [id], "{id}");
        }
    }

    #[test]
    fn what_people_write_is_no_token() {
        for word in [
            "internationalization",
            "application2024",
            "getUserProfileData2",
            "kubernetes1234",
            "user1234567890",
            "configuration-management",
            "summer-sale-50-off-2026",
            "eu-west-1a-prod-2b-x1",
            "jane.doe1987%40example.com",
            "2026-11-20",
            "2026-11-20T10:15:30.123456Z",
            "20261120T101530Z",
            "20261120",
            "20112026",
            "20261120101530",
            "1763596800",
            "1763596800123",
            "1763596800123456789",
            "1.2.3-beta.4+build.20261120",
            "10.244.137.201",
            "52.5200066012345",
            "-13.404953999",
            "12345",
            "10000000",
            "11111111",
            "16777216",
            "2147483647",
            "4294967295",
            "9007199254740991",
            "18446744073709551615",
            "00000000-0000-0000-0000-000000000000",
            "00000000-0000-0000-0000-000000000001",
            "0000000000001234",
            "aaaaaaaaaaaaaaaaaaaaaaaa",
            "application%2Fvnd.api%2Bjson",
            "text,html,application",
            "",
        ] {
            assert_eq!(tokens(word), Vec::<String>::new(), "{word}");
        }
    }

    #[test]
    fn tokens_are_found_inside_of_what_surrounds_them() {
        let uuid = "550e8400-e29b-41d4-a716-446655440000";
        for around in
            ["order-{}", "{}.json", "user:{}", "Users('{}')", "urn%3Auuid%3A{}", "a,{},b", "report_{}_final"]
        {
            assert_eq!(tokens(&around.replace("{}", uuid)), [uuid], "{around}");
        }
        assert_eq!(tokens("ord_9f8e7d6c5b4a3210"), ["9f8e7d6c5b4a3210"]);
        assert_eq!(tokens("48291735,59302846"), ["48291735", "59302846"]);
    }

    #[test]
    fn percent_encoding_and_the_writing_of_uuids_do_not_matter() {
        let keys = Keys::default();
        let rules = LineageRules::default();
        let headers = HeaderMap::new();
        let hashes = |path: &str, query: Option<&str>| {
            let seen = Seen { path, query, headers: &headers, correlation: None };
            Gathered::of(&keys, &rules, &seen, None, false).tokens.as_slice().to_vec()
        };
        let plain = hashes("/a/550e8400-e29b-41d4-a716-446655440000", None);
        assert_eq!(plain.len(), 1);
        for same in [
            "/b/550E8400-E29B-41D4-A716-446655440000",
            "/550e8400e29b41d4a716446655440000/c",
            "/x/%3550e8400%2De29b-41d4-a716-446655440000",
        ] {
            assert_eq!(hashes(same, None), plain, "{same}");
        }
        assert_eq!(hashes("/", Some("a=1&id=550e8400-e29b-41d4-a716-446655440000+x")), plain);
        assert_eq!(hashes("/", Some("550e8400-e29b-41d4-a716-446655440000")), plain);
    }

    #[test]
    fn cookies_and_credentials_are_one_token_each() {
        let keys = Keys::default();
        let rules = LineageRules::default();
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, "theme=dark; session=k3J9x2Lm7Qp4.aB3dE5fG7hJ9; lang=en".parse().unwrap());
        headers.insert(
            AUTHORIZATION,
            "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmN".parse().unwrap(),
        );
        let seen = Seen { path: "/", query: None, headers: &headers, correlation: None };
        let values = Gathered::of(&keys, &rules, &seen, None, false).tokens;
        let sources: Vec<_> = values.with_sources().map(|(_, source)| source).collect();
        assert_eq!(sources, [Source::Header(0), Source::Header(1)]);
        headers.insert(COOKIE, "other=k3J9x2Lm7Qp4.aB3dE5fG7hJ9".parse().unwrap());
        let seen = Seen { path: "/", query: None, headers: &headers, correlation: None };
        let again = Gathered::of(&keys, &rules, &seen, None, false).tokens;
        assert_eq!(
            again.as_slice(),
            values.as_slice(),
            "the name of a cookie does not matter, its value does"
        );
    }

    #[test]
    fn the_shape_of_a_path_leaves_out_what_varies() {
        let keys = Keys::default();
        let headers = HeaderMap::new();
        let shape = |path: &str| {
            let seen = Seen { path, query: None, headers: &headers, correlation: None };
            Gathered::of(&keys, &LineageRules::default(), &seen, None, false).shape
        };
        assert_eq!(shape("/users/550e8400-e29b-41d4-a716-446655440000"), shape("/users/12"));
        assert_ne!(shape("/users/12"), shape("/config/12"));
        assert_ne!(shape("/users/me"), shape("/users/12"));
    }

    #[test]
    fn most_random_ids_are_tokens_and_all_of_those_in_hex() {
        use rand::rngs::SmallRng;
        use rand::{Rng, SeedableRng};
        let mut random = SmallRng::seed_from_u64(1);
        let alphabet = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        for (letters, length, least) in
            [(16, 16, 995), (16, 32, 999), (36, 16, 700), (62, 22, 850), (62, 43, 950)]
        {
            let found = (0..1000)
                .filter(|_| {
                    let id: Vec<u8> =
                        (0..length).map(|_| alphabet[random.random_range(0..letters)]).collect();
                    token(&id).is_some()
                })
                .count();
            assert!(found >= least, "{found} of 1000 ids of {length} characters out of {letters}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_looked_at(value in proptest::collection::vec(any::<u8>(), 0..700)) {
            decoded(&value, true, |value| each_token(value, &mut |_| ()));
            whole_token(&value, &mut |_| ());
        }

        #[test]
        fn any_request_can_be_looked_at(path in ".{0,300}", query in ".{0,300}", id in proptest::collection::vec(any::<u8>(), 0..200)) {
            let headers = HeaderMap::new();
            let seen = Seen { path: &path, query: Some(&query), headers: &headers, correlation: Some(&id) };
            let gathered = Gathered::of(&Keys::default(), &LineageRules::default(), &seen, Some(&id), true);
            prop_assert!(gathered.tokens.as_slice().len() <= MAX_VALUES);
        }
    }
}

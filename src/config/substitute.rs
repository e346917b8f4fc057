//! `${VAR}` in the values of the file (CFG-3).
//!
//! Works on scalars that are parsed already, so that no variable can add a key, a comment or a line. Never
//! recursive: what a variable holds is taken as it is.

use std::borrow::Cow;
use std::ops::Range;

/// Bytes that a scalar may grow to.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

/// Why a scalar has no text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    /// A `${…}` in it is not a reference: its bytes in the scalar.
    Reference(Range<usize>),
    /// Its variables hold more than [`MAX_BYTES`].
    TooLong,
}

/// `text` with `${VAR}`, `${env:VAR}` and `${VAR:-default}` replaced and `$$` as `$`. A variable that is not set,
/// or is empty, leaves nothing, or its default.
///
/// # Errors
/// The first `${` that begins none of these, or variables that hold too much.
pub(super) fn substitute<'t>(
    text: &'t str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Cow<'t, str>, Invalid> {
    if !text.contains('$') {
        return Ok(text.into());
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        let start = text.len() - rest.len() + dollar;
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let Some(inside) = rest.strip_prefix('{') else {
            out.push('$');
            continue;
        };
        let Some(end) = inside.find('}') else { return Err(Invalid::Reference(start..text.len())) };
        let (name, default) =
            reference(&inside[..end]).ok_or(Invalid::Reference(start..start + 2 + end + 1))?;
        let value = env(name).filter(|value| !value.is_empty());
        out.push_str(value.as_deref().unwrap_or(default));
        if out.len() > MAX_BYTES {
            return Err(Invalid::TooLong);
        }
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    Ok(out.into())
}

/// Name and default of what stands between the braces.
fn reference(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix("env:").unwrap_or(text);
    let (name, default) = text.split_once(":-").unwrap_or((text, ""));
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let valid = name.bytes().all(word) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit());
    (valid && !default.contains('\n')).then_some((name, default))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_environment(text: &str) -> Result<String, Invalid> {
        let env = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "YAML" => Some("x\nk: ${A}".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        substitute(text, &env).map(Cow::into_owned)
    }

    #[test]
    fn references_are_replaced_once() {
        let cases = [
            ("${A}", "1"),
            ("${env:A}-${A}", "1-1"),
            ("${NONE:-d e}", "d e"),
            ("${EMPTY:-d}", "d"),
            ("x${NONE}y", "xy"),
            ("${YAML}", "x\nk: ${A}"),
            ("$${A}", "${A}"),
            ("$$${A}", "$1"),
            ("$$$${A}", "$${A}"),
            ("a$b $", "a$b $"),
            ("${A:-${NONE}}", "1}"),
        ];
        for (text, expected) in cases {
            assert_eq!(with_environment(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_begins_like_a_reference_must_be_one() {
        assert_eq!(with_environment("a ${1X} b"), Err(Invalid::Reference(2..7)));
        for text in ["${", "${}", "${A", "${A:?no}", "${A B}", "${file:A}", "${A:-x\ny}"] {
            assert!(with_environment(text).is_err(), "{text}");
        }
    }
}

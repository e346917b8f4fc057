//! Heads and chunks as bytes.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, UPGRADE};
use http::uri::Uri;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::Layout;

/// Writes a request line, with the target in origin form (or `*`), as it was received wherever it has not been changed: `layout`
/// knows what `uri` cannot hold. A path that was put before the target stays before it. The target of CONNECT is its authority.
pub fn request_line(out: &mut Vec<u8>, method: &Method, uri: &Uri, layout: Option<&Layout>) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    match uri.authority() {
        Some(authority) if *method == Method::CONNECT => out.extend_from_slice(authority.as_str().as_bytes()),
        _ => target(out, uri, layout),
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

fn target(out: &mut Vec<u8>, uri: &Uri, layout: Option<&Layout>) {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    if let Some((stands, target)) = layout.and_then(|layout| layout.soft_target.as_ref())
        && let Some(before) = path.strip_suffix(stands.as_str())
    {
        // `*` is no path, and so nothing can stand before it.
        if target.as_ref() != b"*" || before.is_empty() {
            out.extend_from_slice(before.as_bytes());
            out.extend_from_slice(target);
            return;
        }
    }
    // A `Uri` may have a query and no path (`http://shop?q`).
    if !path.starts_with('/') && path != "*" {
        out.push(b'/');
    }
    out.extend_from_slice(path.as_bytes());
}

/// Writes a status line of HTTP/1.1, with the reason phrase that was received, where one was and the status is still that.
pub fn status_line(out: &mut Vec<u8>, status: StatusCode, layout: Option<&Layout>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    // `HTTP/1.1 200`
    let received = layout.filter(|layout| layout.head.get(9..12) == Some(status.as_str().as_bytes()));
    match received {
        Some(layout) => out.extend_from_slice(&layout.reason),
        None => out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
}

/// How many lines of a head are put into order without memory from the heap.
const FEW: usize = 64;

/// Writes header lines, without the empty line that ends them: first those that are in `layout`, in its order and with its
/// names (values may be gone from the map, but those that are there are where they were), then the others in the map's order.
/// A `Host` among those others is the first line of all.
pub fn fields(out: &mut Vec<u8>, headers: &HeaderMap, layout: Option<&Layout>) {
    let Some(layout) = layout else {
        headers.get_all(HOST).iter().for_each(|host| line(out, &HOST, host));
        headers.iter().filter(|(name, _)| **name != HOST).for_each(|(name, value)| line(out, name, value));
        return;
    };
    let head = layout.head.as_ref();
    let mut few = [Place::default(); FEW];
    let mut many = Vec::new();
    let places = if headers.len() <= FEW {
        &mut few[..]
    } else {
        many.resize(headers.len(), Place::default());
        &mut many[..]
    };

    let mut count = 0;
    let mut sorted = true;
    // Of the first lines of the map, a bit for each that is not in the head.
    let mut added = 0_u64;
    for (index, (name, value)) in headers.iter().enumerate() {
        if let Some(place) = Place::of(head, name, value) {
            sorted &= count == 0 || places[count - 1].start < place.start;
            places[count] = place;
            count += 1;
        } else if *name == HOST {
            line(out, name, value);
        } else if index < FEW {
            added |= 1 << index;
        }
    }
    let places = &mut places[..count];
    if !sorted {
        places.sort_unstable_by_key(|place| place.start);
    }

    // Neighbours in the head are written as one piece.
    let mut piece = Place::default();
    let mut again = false;
    for place in &*places {
        if place.start < piece.end {
            // A second copy of a value is a further line, and comes with those that were added.
            again = true;
        } else if head[piece.end as usize..place.start as usize] == *b"\r\n" {
            piece.end = place.end;
        } else {
            piece.put(out, head);
            piece = *place;
        }
    }
    piece.put(out, head);
    if count < headers.len() {
        for (index, (name, value)) in headers.iter().enumerate() {
            let is_added = if index < FEW {
                added >> index & 1 == 1
            } else {
                Place::of(head, name, value).is_none() && *name != HOST
            };
            if is_added {
                line(out, name, value);
            }
        }
    }
    if again {
        places.windows(2).filter(|pair| pair[0] == pair[1]).for_each(|pair| pair[1].put(out, head));
    }
}

/// Where in a head a line is, without its end.
#[derive(Clone, Copy, Default, PartialEq)]
struct Place {
    start: u32,
    end: u32,
}

impl Place {
    /// The line of `head` that this value is in, under this name. A value that was copied to another name is in none.
    fn of(head: &[u8], name: &HeaderName, value: &HeaderValue) -> Option<Self> {
        let value = value.as_bytes();
        // No other value can be where the head is, for the head is still there. An empty one holds on to no memory, and so
        // could; but if there is the same name before it, it is the same line.
        let start = value.as_ptr().addr().checked_sub(head.as_ptr().addr())?;
        let end = start + value.len();
        let mut rest = head.get(..end)?.get(..start)?;
        while let [shorter @ .., b' ' | b'\t'] = rest {
            rest = shorter;
        }
        let [rest @ .., b':'] = rest else { return None };
        let before = rest.len().checked_sub(name.as_str().len())?;
        let same = rest[before..].eq_ignore_ascii_case(name.as_str().as_bytes());
        if !same || rest[..before].last() != Some(&b'\n') {
            return None;
        }
        Some(Self { start: u32::try_from(before).ok()?, end: u32::try_from(end).ok()? })
    }

    fn put(self, out: &mut Vec<u8>, head: &[u8]) {
        if self.start < self.end {
            out.extend_from_slice(&head[self.start as usize..self.end as usize]);
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn line(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    let (name, value) = (written(name).as_bytes(), value.as_bytes());
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A name as it is mostly written, where that is one without which nothing works: there are peers who know it in no other
/// form.
fn written(name: &HeaderName) -> &str {
    match *name {
        HOST => "Host",
        CONNECTION => "Connection",
        CONTENT_LENGTH => "Content-Length",
        UPGRADE => "Upgrade",
        _ => name.as_str(),
    }
}

/// Writes the line before a chunk of `size` bytes, which is not 0.
pub fn chunk_size(out: &mut Vec<u8>, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(size >> (digit * 4)) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the last chunk, and the trailers behind it.
pub fn last_chunk(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        line(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

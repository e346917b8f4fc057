//! Something per place, for a bounded number of places.
//!
//! A place is where traffic can be compared with its own past: a method and route on the way in, a destination on
//! the way out. Looking one up neither allocates nor touches a counter that other threads share.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::Method;

use crate::exchange::{Record, Side};

/// Places of one side. What finds no room shares one more.
const MAX_PLACES: usize = 256;

/// Bytes of a name; a caller can make an authority as long as it likes.
const MAX_NAME: usize = 200;

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which way.
    pub side: Side,
    /// `None` is an unknown method; destinations have none either.
    pub method: Option<Method>,
    /// The route, empty for requests without one; or the destination.
    pub name: Arc<str>,
}

/// `GET /orders/{id}`, `GET` without a route, `stock:8080` for a destination.
impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.side, &*self.name) {
            (Side::Outbound, name) | (Side::Inbound, name @ REST) => out.write_str(name),
            (Side::Inbound, "") => out.write_str(self.method_word()),
            (Side::Inbound, route) => write!(out, "{} {route}", self.method_word()),
        }
    }
}

impl Place {
    fn method_word(&self) -> &str {
        self.method.as_ref().map_or("_OTHER", Method::as_str)
    }
}

/// The name of the place that all share for which there was no room.
const REST: &str = "(others)";

/// What people call the destination of a call: the name in the settings, else the authority without credentials.
pub fn destination(record: &Record) -> &str {
    if let Some(name) = &record.destination {
        return cut(name, MAX_NAME);
    }
    let authority = record.request.as_ref().map_or("", |request| record.text(request.authority));
    match authority.rsplit_once('@').map_or(authority, |(_, host)| host) {
        "" => "(unnamed)",
        host => cut(host, MAX_NAME),
    }
}

/// At most `bytes` of the front of `text`, in whole characters.
pub fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// A `T` for each place of one side.
#[derive(Debug)]
pub struct Places<T> {
    side: Side,
    /// By name; a route has few methods.
    index: HashMap<Arc<str>, Vec<(Option<Method>, usize)>>,
    entries: Vec<(Place, T)>,
    rest: Option<(Place, T)>,
    overflowed: u64,
}

impl<T: Default> Places<T> {
    /// No places yet.
    pub fn new(side: Side) -> Self {
        Self { side, index: HashMap::new(), entries: Vec::new(), rest: None, overflowed: 0 }
    }

    /// Where the exchange belongs, which has to be one of this side; `None` where no request could be read, which
    /// says nothing about any route.
    pub fn of(&mut self, record: &Record) -> Option<&mut (Place, T)> {
        let (method, name) = key(self.side, record)?;
        Some(match self.position(method, name) {
            Some(entry) => &mut self.entries[entry],
            None => self.add(method, name),
        })
    }

    /// The same, of the places that there are.
    pub fn known(&mut self, record: &Record) -> Option<&mut (Place, T)> {
        let (method, name) = key(self.side, record)?;
        match self.position(method, name) {
            Some(entry) => Some(&mut self.entries[entry]),
            None => self.rest.as_mut(),
        }
    }

    fn position(&self, method: Option<&Method>, name: &str) -> Option<usize> {
        let mut methods = self.index.get(name)?.iter();
        methods.find(|(known, _)| known.as_ref() == method).map(|(_, entry)| *entry)
    }

    fn add(&mut self, method: Option<&Method>, name: &str) -> &mut (Place, T) {
        if self.entries.len() >= MAX_PLACES {
            self.overflowed += 1;
            let place = || Place { side: self.side, method: None, name: REST.into() };
            return self.rest.get_or_insert_with(|| (place(), T::default()));
        }
        let name = self.index.get_key_value(name).map_or_else(|| name.into(), |(known, _)| known.clone());
        let place = Place { side: self.side, method: method.cloned(), name };
        self.index.entry(place.name.clone()).or_default().push((place.method.clone(), self.entries.len()));
        self.entries.push((place, T::default()));
        self.entries.last_mut().expect("one was pushed")
    }

    /// Lets go of the places that `stays` says no to.
    pub fn retain(&mut self, mut stays: impl FnMut(&T) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|(_, value)| stays(value));
        if self.entries.len() == before {
            return;
        }
        self.index.clear();
        for (number, (place, _)) in self.entries.iter().enumerate() {
            self.index.entry(place.name.clone()).or_default().push((place.method.clone(), number));
        }
    }

    /// Exchanges that had to share the one place because there were too many.
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// All places.
    pub fn iter(&self) -> impl Iterator<Item = &(Place, T)> {
        self.entries.iter().chain(&self.rest)
    }

    /// All places, to change what is there.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut (Place, T)> {
        self.entries.iter_mut().chain(&mut self.rest)
    }
}

/// Method and name of the place of an exchange.
fn key(side: Side, record: &Record) -> Option<(Option<&Method>, &str)> {
    if side == Side::Outbound {
        return Some((None, destination(record)));
    }
    let request = record.request.as_ref()?;
    let route = request.route.as_deref().unwrap_or_default();
    Some((request.known_method.then_some(&request.method), cut(route, MAX_NAME)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{sample, sample_call};

    fn routed(route: &str) -> Record {
        let mut record = sample();
        record.request.as_mut().unwrap().route = Some(route.into());
        record
    }

    #[test]
    fn a_place_is_method_and_route() {
        let mut places = Places::<u32>::new(Side::Inbound);
        let mut post = routed("/a");
        post.request.as_mut().unwrap().method = Method::POST;
        for record in [routed("/a"), routed("/b"), post, routed("/a")] {
            places.of(&record).unwrap().1 += 1;
        }
        let seen: Vec<_> = places.iter().map(|(place, count)| (place.to_string(), *count)).collect();
        let wanted = [("GET /a", 2), ("GET /b", 1), ("POST /a", 1)];
        assert_eq!(seen, wanted.map(|(place, count)| (place.to_owned(), count)));
    }

    #[test]
    fn requests_without_a_route_share_one_place_for_each_method() {
        let mut places = Places::<u32>::new(Side::Inbound);
        let mut record = sample();
        let request = record.request.as_mut().unwrap();
        request.route = None;
        assert_eq!(places.of(&record).unwrap().0.to_string(), "GET");
        let request = record.request.as_mut().unwrap();
        (request.method, request.known_method) = ("BREW".parse().unwrap(), false);
        assert_eq!(places.of(&record).unwrap().0.to_string(), "_OTHER");
        record.request = None;
        assert!(places.of(&record).is_none());
    }

    #[test]
    fn a_destination_is_named_without_credentials() {
        let mut record = sample_call();
        assert_eq!(destination(&record), "stock");
        record.destination = None;
        assert_eq!(destination(&record), "stock.example");
        let authority = record.put("user:secret@stock.example:81");
        record.request.as_mut().unwrap().authority = authority;
        assert_eq!(destination(&record), "stock.example:81");
        record.request = None;
        assert_eq!(destination(&record), "(unnamed)");
    }

    #[test]
    fn places_beyond_the_bound_share_one_and_are_counted() {
        let mut places = Places::<u32>::new(Side::Inbound);
        for number in 0..MAX_PLACES + 3 {
            places.of(&routed(&format!("/{number}"))).unwrap().1 += 1;
        }
        assert_eq!(places.iter().count(), MAX_PLACES + 1);
        assert_eq!(places.overflowed(), 3);
        let (rest, count) = places.iter().last().unwrap();
        assert_eq!((rest.to_string().as_str(), *count), (REST, 3));
    }

    #[test]
    fn a_place_that_left_makes_room() {
        let mut places = Places::<u32>::new(Side::Inbound);
        for number in 0..MAX_PLACES {
            places.of(&routed(&format!("/{number}"))).unwrap().1 = number as u32;
        }
        places.retain(|number| *number != 7);
        *places.of(&routed("/new")).map(|(_, count)| count).unwrap() = 1000;
        assert_eq!(places.of(&routed("/255")).unwrap().1, 255);
        assert_eq!(places.of(&routed("/new")).unwrap().1, 1000);
        assert_eq!(places.overflowed(), 0);
    }
}

//! IPv4 addresses within IPv6 addresses.
//!
//! Many forms of IPv6 address carry one of IPv4, and a gateway or the kernel may take the packet there. Whoever judges
//! only what is written lets `::ffff:169.254.169.254` pass where `169.254.169.254` is denied.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The IPv4 addresses that `address` may stand for; none for what is plainly IPv4 or plainly IPv6.
pub(super) fn behind(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let found = match address {
        IpAddr::V4(_) => [None; 4],
        IpAddr::V6(address) => within(address),
    };
    found.into_iter().flatten().map(IpAddr::V4)
}

fn within(address: Ipv6Addr) -> [Option<Ipv4Addr>; 4] {
    let octets = address.octets();
    let at = |positions: [usize; 4]| Ipv4Addr::from(positions.map(|position| octets[position]));
    let last = at([12, 13, 14, 15]);
    match address.segments() {
        // Loopback and unspecified have the form of a compatible address and are none.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => [None; 4],
        // Compatible (RFC 4291 2.5.5.1), mapped (2.5.5.2), and translated (RFC 2765).
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] => [Some(last), None, None, None],
        // NAT64, the well-known prefix (RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => [Some(last), None, None, None],
        // NAT64, the prefix for local use (RFC 8215). Whoever runs it chooses the length, and with it where the address
        // is (RFC 6052 2.2; octet 8 stays free). We cannot know, so each place counts, but for those that hold 0.x.x.x:
        // that is what a place holds that is not in use.
        [0x64, 0xff9b, 1, ..] => {
            let used = |address: &Ipv4Addr| address.octets()[0] != 0;
            let places = [last, at([6, 7, 9, 10]), at([7, 9, 10, 11]), at([9, 10, 11, 12])];
            if !places.iter().any(used) {
                return [Some(last), None, None, None];
            }
            places.map(|place| Some(place).filter(used))
        }
        // 6to4 (RFC 3056).
        [0x2002, ..] => [Some(at([2, 3, 4, 5])), None, None, None],
        // Teredo (RFC 4380): the client with its bits turned over, and the server.
        [0x2001, 0, ..] => [Some(Ipv4Addr::from(!u32::from(last))), Some(at([4, 5, 6, 7])), None, None],
        // ISATAP (RFC 5214), below any prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe, _, _] => [Some(last), None, None, None],
        _ => [None; 4],
    }
}

//! What is denied to everybody unless the configuration allows it by name.
//!
//! Loopback and private networks are not among it: the service may talk to its neighbours. What is here means the
//! machine, the link or everybody on it, never one service of the network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Each range and what it is, in words that follow "is". Single services come before the ranges around them.
const RANGES: [(IpNet, &str); 20] = [
    // Amazon's, and after it the metadata service of Google, Azure, Oracle, DigitalOcean, Hetzner, OpenStack …
    (v4([169, 254, 169, 254], 32), "link-local, the metadata service of most clouds"),
    // Credentials of tasks on Amazon ECS, and of pods on EKS.
    (v4([169, 254, 170, 2], 32), "link-local, the credentials of Amazon ECS"),
    (v4([169, 254, 170, 23], 32), "link-local, the credentials of Amazon EKS"),
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23], 128), "the credentials of Amazon EKS"),
    // The same over IPv6. These are unique local addresses (RFC 4193), so no other rule catches them.
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), "the metadata service of Amazon"),
    (v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), "the metadata service of Google Cloud"),
    (v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128), "the metadata service of Oracle Cloud"),
    (v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128), "the metadata service of Scaleway"),
    (v6([0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1], 128), "the metadata service of Akamai (Linode)"),
    (v6([0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200], 128), "the metadata service of Alibaba Cloud"),
    // Within the shared address space of carriers (RFC 6598), so it looks like a neighbour.
    (v4([100, 100, 100, 200], 32), "the metadata service of Alibaba Cloud"),
    // Within the protocol assignments of IANA (RFC 6890), where nothing of the kind belongs.
    (v4([192, 0, 0, 192], 32), "the metadata service of Oracle Cloud Classic"),
    // Azure's WireServer, which gives the agent of a machine its settings, secrets among them. A public address.
    (v4([168, 63, 129, 16], 32), "the platform service of Azure"),
    // RFC 3927 and RFC 4291 2.5.6: this wire only, which is where platforms put what serves the machine itself.
    (v4([169, 254, 0, 0], 16), "link-local"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    // RFC 1122 3.2.1.3: "this host on this network". Linux connects 0.0.0.0 and :: to loopback.
    (v4([0, 0, 0, 0], 8), "unspecified"),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), "unspecified"),
    // RFC 5771, RFC 4291 2.7. TCP cannot go there, but the reason is better told by us than by the kernel.
    (v4([224, 0, 0, 0], 4), "multicast"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
    // RFC 919.
    (v4([255, 255, 255, 255], 32), "broadcast"),
];

/// Names of metadata services. They lead to the addresses above, so this only says so earlier. The short forms
/// `metadata` and `instance-data` are left out: they may be services of the user, and their addresses decide.
const NAMES: [(&str, &str); 3] = [
    ("metadata.google.internal", "the metadata service of Google Cloud"),
    ("metadata.goog", "the metadata service of Google Cloud"),
    ("instance-data.ec2.internal", "the metadata service of Amazon"),
];

/// What `address` is, if it is denied.
pub(super) fn address(address: IpAddr) -> Option<&'static str> {
    RANGES.iter().find(|(net, _)| net.contains(&address)).map(|(_, what)| *what)
}

/// What `name` is, if it is denied. The name has no trailing dot.
pub(super) fn name(name: &str) -> Option<&'static str> {
    NAMES.iter().find(|(denied, _)| denied.eq_ignore_ascii_case(name)).map(|(_, what)| *what)
}

/// Whether `net` lies within a denied range around `address`: only then was it written with that range in mind.
pub(super) fn has_room_for(address: IpAddr, net: &IpNet) -> bool {
    RANGES.iter().any(|(range, _)| range.contains(&address) && range.contains(net))
}

const fn v4(octets: [u8; 4], prefix: u8) -> IpNet {
    let [a, b, c, d] = octets;
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

const fn v6(segments: [u16; 8], prefix: u8) -> IpNet {
    let [a, b, c, d, e, f, g, h] = segments;
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix))
}

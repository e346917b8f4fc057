//! Attempts, by property: addresses spelled and disguised in every way that we know of, and text of no meaning at all.

use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::tests::rules;
use super::*;

/// What the C library makes of a host before it asks DNS: up to four numbers, the last of which fills what is left.
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let number = |part: &str| -> Option<u64> {
        let lower = part.to_ascii_lowercase();
        match lower.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None if lower.len() > 1 && lower.starts_with('0') => u64::from_str_radix(&lower, 8).ok(),
            None => lower.parse().ok(),
        }
    };
    let parts: Vec<u64> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, before) = parts.split_last()?;
    let room = 4u32.checked_sub(u32::try_from(before.len()).ok()?)?;
    if room == 0 || before.iter().any(|part| *part > 255) || *last >= 1 << (8 * room) {
        return None;
    }
    let high = before.iter().enumerate().map(|(index, part)| part << (24 - 8 * index)).sum::<u64>();
    u32::try_from(high + last).ok().map(Ipv4Addr::from)
}

/// An address in each of the ways that the C library would understand.
fn spelled(address: Ipv4Addr) -> Vec<String> {
    let [a, b, c, d] = address.octets();
    let whole = u32::from(address);
    vec![
        whole.to_string(),
        format!("{whole:#x}"),
        format!("0{whole:o}"),
        format!("{a}.{}", whole & 0xff_ffff),
        format!("{a}.{b}.{}", whole & 0xffff),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("{a:#x}.{b}.{c:#x}.{d}"),
        format!("{a:#X}.{b:#x}.{:#x}", whole & 0xffff),
    ]
}

/// The same in each of the ways that it may be put into IPv6.
fn disguised(address: Ipv4Addr) -> Vec<Ipv6Addr> {
    let [a, b, c, d] = address.octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let (ab, cd) = (u16::from(a) << 8 | u16::from(b), u16::from(c) << 8 | u16::from(d));
    let mut forms = vec![
        [0, 0, 0, 0, 0, 0xffff, high, low],
        [0, 0, 0, 0, 0xffff, 0, high, low],
        [0x64, 0xff9b, 0, 0, 0, 0, high, low],
        [0x64, 0xff9b, 1, 0, 0, 0, high, low],
        [0x2002, high, low, 7, 0, 0, 0, 1],
        [0x2001, 0, 0x0808, 0x0808, 0x8000, 0x63bf, !ab, !cd],
        [0x2001, 0xdb8, 0, 0, 0, 0x5efe, high, low],
        [0x2001, 0xdb8, 0, 0, 0x200, 0x5efe, high, low],
    ];
    if u32::from(address) > 1 {
        forms.push([0, 0, 0, 0, 0, 0, high, low]);
    }
    forms.into_iter().map(Ipv6Addr::from).collect()
}

fn addresses() -> impl Strategy<Value = Ipv4Addr> {
    let near_the_denied = prop::sample::select(vec![
        [169, 254, 0, 0],
        [169, 254, 169, 254],
        [100, 100, 100, 200],
        [192, 0, 0, 192],
        [168, 63, 129, 16],
        [0, 0, 0, 0],
        [224, 0, 0, 0],
        [255, 255, 255, 255],
        [127, 0, 0, 1],
    ]);
    prop_oneof![
        any::<u32>().prop_map(Ipv4Addr::from),
        (near_the_denied, 0u32..4).prop_map(|(octets, beside)| {
            Ipv4Addr::from(u32::from(Ipv4Addr::from(octets)).wrapping_add(beside).wrapping_sub(1))
        }),
    ]
}

fn targets() -> impl Strategy<Value = String> {
    let hosts = prop_oneof![
        Just("*".to_owned()),
        "(\\*\\.)?[a-z][a-z0-9_-]{0,9}(\\.[a-z][a-z0-9]{0,5}){0,3}\\.?",
        any::<u32>().prop_map(|address| Ipv4Addr::from(address).to_string()),
        any::<u128>().prop_map(|address| format!("[{}]", Ipv6Addr::from(address))),
        (any::<u128>(), 0u8..=128).prop_map(|(a, n)| {
            format!("[{}]", Ipv6Net::new(Ipv6Addr::from(a), n).expect("a length").trunc())
        }),
        (any::<u32>(), 0u8..=32)
            .prop_map(|(a, n)| Ipv4Net::new(Ipv4Addr::from(a), n).expect("a length").trunc().to_string()),
    ];
    let ports = prop_oneof![
        Just(String::new()),
        (1u16..).prop_map(|port| format!(":{port}")),
        (1u16..=1000, 1000u16..).prop_map(|(first, last)| format!(":{first}-{last}")),
    ];
    (hosts, ports).prop_map(|(hosts, ports)| hosts + &ports)
}

proptest! {
    // What fails becomes a case in tests/corpus, not a seed that only this crate can read.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(text in any::<String>(), odd in "[\\[\\]0-9a-fx:.%@*/ -]{0,40}", port: u16, ip: u128) {
        let rules = rules(&["*", "169.254.169.254", "*.example"], &["*:25", "10.0.0.0/8"]);
        for text in [&text, &odd] {
            let _ = destination(text, None).map(|(host, port)| (host.len(), port));
            let _ = rules.permits_name(text, port).map_err(|denied| denied.to_string());
            let _ = rules.permits_address(text, SocketAddr::new(Ipv6Addr::from(ip).into(), port));
            let _ = text.parse::<Target>().map_err(|error| error.to_string());
            let _ = text.parse::<PortRange>();
        }
        let _ = rules.permits_client(Ipv6Addr::from(ip).into());
    }

    #[test]
    fn every_disguise_is_judged_like_what_it_hides(address in addresses(), deny: bool) {
        let denied = format!("{address}");
        let denied = if deny { vec![denied.as_str()] } else { Vec::new() };
        let rules = rules(&[], &denied);
        let plain = rules.permits_name(&address.to_string(), 80).is_ok();
        prop_assert!(!(deny && plain));
        for disguise in disguised(address) {
            let judged = rules.permits_name(&disguise.to_string(), 80).is_ok();
            prop_assert_eq!(judged, plain, "{} as {}", address, disguise);
            let resolved = rules.permits_address("rebind.example", SocketAddr::new(disguise.into(), 80)).is_ok();
            prop_assert_eq!(resolved, plain, "{} as {} by name", address, disguise);
        }
    }

    // The other way round it does not hold: what is in a place by accident may be denied.
    #[test]
    fn what_is_denied_stays_denied_in_each_place_of_local_nat64(address in addresses()) {
        let [a, b, c, d] = address.octets().map(u16::from);
        let rules = EgressRules::default();
        if rules.permits_name(&address.to_string(), 80).is_ok() || a == 0 {
            return Ok(());
        }
        for places in [[a << 8 | b, c, d << 8, 0], [a, b, c << 8 | d, 0], [0, a, b << 8 | c, d << 8]] {
            let [at_48, at_64, at_80, at_96] = places;
            for rest in [0, 0xffff] {
                let disguise = Ipv6Addr::from([0x64, 0xff9b, 1, at_48, at_64, at_80, at_96, rest]);
                prop_assert!(rules.permits_name(&disguise.to_string(), 80).is_err(), "{address} as {disguise}");
            }
        }
    }

    #[test]
    fn no_spelling_of_an_address_passes_as_a_name(address in addresses()) {
        for spelling in spelled(address) {
            prop_assert_eq!(inet_aton(&spelling), Some(address), "{}", &spelling);
            prop_assert!(EgressRules::default().permits_name(&spelling, 80).is_err(), "{} as {}", address, spelling);
        }
    }

    #[test]
    fn what_passes_as_a_name_is_an_address_to_nobody(text in "[0-9a-fxX.]{1,20}") {
        if let Ok(Host::Name(name)) = Host::read(&text) {
            prop_assert_eq!(inet_aton(name), None, "{}", name);
        }
    }

    #[test]
    fn case_and_a_dot_at_the_end_change_nothing(name in "[a-z]{1,3}(\\.(example|com|google|internal)){0,2}", port in 1u16..) {
        let rules = rules(&["*.example", "a.com:443", "*.internal"], &["b.example", "*.google.internal:80"]);
        let plain = rules.permits_name(&name, port).is_ok();
        prop_assert_eq!(rules.permits_name(&name.to_uppercase(), port).is_ok(), plain);
        prop_assert_eq!(rules.permits_name(&format!("{name}."), port).is_ok(), plain);
    }

    #[test]
    fn a_denied_target_stays_denied_whatever_is_allowed(deny in targets(), allow in targets(), ip: u32, port in 1u16..) {
        let without = rules(&[], &[&deny]);
        let with = rules(&[&allow, "*", "0.0.0.0/0", "169.254.0.0/16"], &[&deny]);
        let address = SocketAddr::new(Ipv4Addr::from(ip).into(), port);
        let by_list = |judged: Result<(), Denied>| judged.is_err_and(|d| matches!(d.rule(), Rule::DenyList(_)));
        if by_list(without.permits_address("a.example", address)) {
            prop_assert!(by_list(with.permits_address("a.example", address)));
        }
    }

    #[test]
    fn a_target_is_told_as_it_can_be_written(text in targets()) {
        let target: Target = text.parse().map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        prop_assert_eq!(target.to_string().parse(), Ok(target), "{}", text);
    }
}

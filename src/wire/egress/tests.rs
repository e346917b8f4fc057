//! Attempts, by example. Those of default rules are the files of `tests/corpus/egress`: on each
//! line a target as CONNECT has it, and where a space follows, the address that its name resolved to.

use std::path::Path;

use super::*;

pub(super) fn rules(allow: &[&str], deny: &[&str]) -> EgressRules {
    let targets = |texts: &[&str]| texts.iter().map(|text| text.parse().expect(text)).collect();
    EgressRules { allow: targets(allow), deny: targets(deny), ..EgressRules::default() }
}

/// Judges a line of the corpus in the order in which a proxy asks.
fn judge(rules: &EgressRules, line: &str) -> Result<(), Denied> {
    let (authority, resolved) = line.split_once(' ').filter(|(_, a)| a.parse::<IpAddr>().is_ok()).unzip();
    let (host, port) = destination(authority.unwrap_or(line), Some(80))?;
    rules.permits_name(host, port)?;
    let address = resolved.map_or_else(|| host.parse().ok(), |address: &str| address.parse().ok());
    address.map_or(Ok(()), |address: IpAddr| rules.permits_address(host, SocketAddr::new(address, port)))
}

fn each_line(verdict: &str, mut attempt: impl FnMut(&str, &str)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/egress").join(verdict);
    let mut lines = 0;
    for entry in folder.read_dir().expect("the corpus is there") {
        let path = entry.expect("an entry").path();
        for line in std::fs::read_to_string(&path).expect("a case can be read").lines() {
            attempt(&path.display().to_string(), line);
            lines += 1;
        }
    }
    assert!(lines > 30, "{} has only {lines} lines", folder.display());
}

#[test]
fn what_the_corpus_accepts_is_permitted() {
    let rules = EgressRules::default();
    each_line("accept", |file, line| assert_eq!(judge(&rules, line), Ok(()), "{file}: {line}"));
}

#[test]
fn what_the_corpus_rejects_is_refused_with_a_reason() {
    let rules = EgressRules::default();
    each_line("reject", |file, line| {
        let told = judge(&rules, line).expect_err(&format!("{file}: {line}")).to_string();
        assert!(told.contains(" is "), "{file}: {line}: {told}");
    });
}

#[test]
fn what_the_corpus_rejects_stays_refused_with_a_star_in_allow() {
    for allow in [&["*"][..], &["0.0.0.0/0", "::/0"], &["*", "*.example", "rebind.example", "localhost"]] {
        let rules = rules(allow, &[]);
        each_line("reject", |file, line| assert!(judge(&rules, line).is_err(), "{allow:?} {file}: {line}"));
    }
}

#[test]
fn only_loopback_may_use_the_way_out() {
    let rules = EgressRules::default();
    for peer in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
        assert!(rules.permits_client(peer.parse().unwrap()), "{peer}");
    }
    for peer in ["10.0.0.1", "0.0.0.0", "::", "fe80::1", "::ffff:10.0.0.1", "::127.0.0.1", "203.0.113.9"] {
        assert!(!rules.permits_client(peer.parse().unwrap()), "{peer}");
    }
    let rules = EgressRules { clients: vec!["10.0.0.0/8".parse().unwrap()], ..rules };
    assert!(rules.permits_client("::ffff:10.1.2.3".parse().unwrap()));
    assert!(!rules.permits_client("127.0.0.1".parse().unwrap()), "the list is the whole list");
}

#[test]
fn connect_leads_to_ports_that_are_for_it() {
    let rules = EgressRules::default();
    for port in [80, 443, 1024, 8443, 65535] {
        assert_eq!(rules.permits_connect_port(port), Ok(()), "{port}");
    }
    for port in [0, 1, 22, 25, 53, 79, 81, 442, 444, 465, 587, 1023] {
        assert!(rules.permits_connect_port(port).is_err(), "{port}");
    }
    let told = rules.permits_connect_port(25).unwrap_err().to_string();
    assert_eq!(told, "port 25 is not for CONNECT; outbound.connect_ports has 80, 443, 1024-65535");
}

#[test]
fn connect_without_a_port_is_malformed() {
    for authority in ["example.com", "example.com:", "[::1]", "[::1]:", "", ":"] {
        let denied = destination(authority, None).expect_err(authority);
        assert!(denied.is_malformed(), "{authority}: {denied}");
    }
    assert_eq!(destination("[::1]:8080", None), Ok(("::1", 8080)));
    assert_eq!(destination("Example.com.:0443", None), Ok(("Example.com.", 443)));
}

#[test]
fn a_list_of_allowed_targets_is_the_whole_list() {
    let rules = rules(&["example.com", "*.shop.example:443", "10.0.0.0/8"], &[]);
    for line in [
        "EXAMPLE.COM.:80",
        "example.com:81 93.184.215.14",
        "a.b.shop.example:443 93.184.215.14",
        "10.9.8.7:5432",
        "[::ffff:10.0.0.1]:80",
        "[64:ff9b::10.0.0.1]:80",
        "anything.example:80 10.1.1.1",
    ] {
        assert_eq!(judge(&rules, line), Ok(()), "{line}");
    }
    for line in [
        "www.example.com:80 93.184.215.14",
        "notexample.com:80 93.184.215.14",
        "shop.example:443 93.184.215.14",
        "xshop.example:443 93.184.215.14",
        "the-shop.example:443 93.184.215.14",
        "a.shop.example:80 93.184.215.14",
        "93.184.215.14:80",
        "127.0.0.1:80",
        "[2001:db8::1]:80",
        "example.com:80 169.254.169.254",
    ] {
        assert!(judge(&rules, line).is_err(), "{line}");
    }
}

#[test]
fn a_name_that_could_never_be_allowed_is_not_even_resolved() {
    assert!(rules(&["example.com"], &[]).permits_name("secret.attacker.example", 80).is_err());
    assert!(rules(&["10.0.0.0/8:443"], &[]).permits_name("attacker.example", 80).is_err());
    assert_eq!(rules(&["10.0.0.0/8:443"], &[]).permits_name("attacker.example", 443), Ok(()));
}

#[test]
fn deny_beats_allow() {
    let rules =
        rules(&["*.example.com", "10.0.0.0/8"], &["secret.example.com", "10.0.0.0/24", "*:25", "*.evil"]);
    for line in [
        "Secret.Example.Com.:80",
        "10.0.0.9:80",
        "[::ffff:10.0.0.9]:80",
        "[2002:a00:9::]:80",
        "[64:ff9b::a00:9]:80",
        "www.example.com:80 10.0.0.9",
        "www.example.com:25",
        "10.2.0.9:25",
        "a.evil:80",
    ] {
        assert!(judge(&rules, line).is_err(), "{line}");
    }
    assert_eq!(judge(&rules, "www.example.com:80 10.2.0.9"), Ok(()));
}

#[test]
fn an_address_that_is_allowed_as_such_beats_what_is_built_in() {
    for (allow, line) in [
        ("169.254.169.254", "169.254.169.254:80"),
        ("169.254.169.254", "[::ffff:169.254.169.254]:80"),
        ("[::ffff:169.254.169.254]", "169.254.169.254:80"),
        ("169.254.169.254:80", "anything.example:80 169.254.169.254"),
        ("169.254.0.0/16", "169.254.169.254:80"),
        ("fd00:ec2::254", "[fd00:ec2::254]:80"),
        ("fe80::/10", "[fe80::1]:80"),
    ] {
        assert_eq!(judge(&rules(&[allow], &[]), line), Ok(()), "{allow}: {line}");
    }
    for (allow, line) in [
        ("169.254.169.254:80", "169.254.169.254:8080"),
        ("169.254.0.0/17", "169.254.169.254:80"),
        // Wider than what is denied, so not written with it in mind.
        ("100.64.0.0/10", "100.100.100.200:80"),
        ("fd00::/8", "[fd00:ec2::254]:80"),
        // The name was allowed, and somebody else says where it leads.
        ("metadata.google.internal", "metadata.google.internal:80 169.254.169.254"),
    ] {
        assert!(judge(&rules(&[allow], &[]), line).is_err(), "{allow}: {line}");
    }
    let both = rules(&["metadata.google.internal", "169.254.169.254"], &[]);
    assert_eq!(judge(&both, "metadata.google.internal:80 169.254.169.254"), Ok(()));
    assert!(judge(&rules(&["169.254.169.254"], &["169.254.0.0/16"]), "169.254.169.254:80").is_err());
}

#[test]
fn a_refusal_says_what_to_write_and_writing_it_helps() {
    let told = |rules: &EgressRules, line: &str| judge(rules, line).expect_err(line).to_string();
    assert_eq!(
        told(&EgressRules::default(), "169.254.0.9:80"),
        r#"169.254.0.9:80 is link-local; allow it with outbound.allow: ["*", "169.254.0.9"]"#
    );
    assert_eq!(judge(&rules(&["*", "169.254.0.9"], &[]), "169.254.0.9:80"), Ok(()));
    assert_eq!(judge(&rules(&["*", "169.254.0.9"], &[]), "example.com:80 93.184.215.14"), Ok(()));
    assert_eq!(
        told(&rules(&["example.com"], &[]), "example.com:80 ::ffff:169.254.169.254"),
        "example.com:80 leads to 169.254.169.254, which is link-local, the metadata service of most clouds; allow it \
         with outbound.allow: […, \"169.254.169.254\"]"
    );
    assert_eq!(
        told(&EgressRules::default(), "[64:ff9b::e000:1]:80"),
        r#"[64:ff9b::e000:1]:80 stands for 224.0.0.1, which is multicast; allow it with outbound.allow: ["*", "224.0.0.1"]"#
    );
    assert_eq!(
        told(&rules(&["example.com"], &[]), "Other.Example:80"),
        r#"Other.Example:80 is not in outbound.allow; allow it with outbound.allow: […, "other.example"]"#
    );
    assert_eq!(
        told(&rules(&[], &["*.Evil.:80-90"]), "a.evil:80"),
        r#"a.evil:80 is denied by "*.evil:80-90" in outbound.deny"#
    );
    assert!(told(&EgressRules::default(), "127.1:80").contains("four decimal numbers"));
}

#[test]
fn a_refusal_carries_no_control_characters_and_has_an_end() {
    let told = destination(&format!("a\r\n\u{1b}[31m{}", "x".repeat(100_000)), None).unwrap_err().to_string();
    assert!(told.len() < 400 && !told.contains(char::is_control), "{told}");
}

#[test]
fn only_nonsense_is_malformed() {
    let rules = EgressRules::default();
    assert!(!rules.permits_name("169.254.169.254", 80).unwrap_err().is_malformed());
    assert!(rules.permits_name("127.1", 80).unwrap_err().is_malformed());
    assert!(rules.permits_name("example.com", 0).unwrap_err().is_malformed());
    assert!(rules.permits_address("example.com", ([10, 0, 0, 1], 0).into()).is_err());
}

#[test]
fn targets_are_written_in_many_forms_and_told_in_one() {
    for (text, told) in [
        ("example.com", "example.com"),
        ("Example.COM.", "example.com"),
        ("*.Example.com", "*.example.com"),
        ("example.com:443", "example.com:443"),
        ("*", "*"),
        ("*:25", "*:25"),
        ("*:1-1023", "*:1-1023"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/8:5432", "10.0.0.0/8:5432"),
        ("169.254.169.254", "169.254.169.254"),
        ("169.254.169.254/32", "169.254.169.254"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("[2001:db8::/32]:8000-8999", "[2001:db8::/32]:8000-8999"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("[::1]:80", "[::1]:80"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
    ] {
        assert_eq!(text.parse::<Target>().map(|target| target.to_string()), Ok(told.to_owned()), "{text}");
    }
}

#[test]
fn what_is_no_target_is_refused_with_what_to_write() {
    for (text, hint) in [
        ("", "no host"),
        ("http://example.com", "only its host"),
        ("a.*.com", "`*.example.com`"),
        ("*example.com", "`*.example.com`"),
        ("*.", "no host"),
        ("*.10.0.0.1", "a network"),
        ("10.1.2.3/8", "write `10.0.0.0/8`"),
        ("2001:db8::1/32", "write `2001:db8::/32`"),
        ("10.0.0.0/33", "length of its prefix"),
        ("10.0.0.0/+8", "length of its prefix"),
        ("10.0/16", "length of its prefix"),
        ("example.com/8", "length of its prefix"),
        ("127.1", "four decimal numbers"),
        ("bücher.example", "punycode"),
        ("user@example.com", "leave them out"),
        ("fe80::1%eth0", "zones"),
        ("example.com:", "1 to 65535"),
        ("example.com:0", "1 to 65535"),
        ("example.com:http", "1 to 65535"),
        ("example.com:90-80", "`80-90`"),
        ("exa mple.com", "no name has"),
    ] {
        let error = text.parse::<Target>().expect_err(text).to_string();
        assert!(error.contains(hint), "{text}: {error}");
    }
}

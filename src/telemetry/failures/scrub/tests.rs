use proptest::prelude::*;

use super::*;

/// What comes in, and what is shown of it.
const TEXTS: &[(&str, &str)] = &[
    // Nothing to hide.
    ("", ""),
    ("bad quantity: -3", "bad quantity: -3"),
    ("GET /orders/42: 500 Internal Server Error", "GET /orders/42: 500 Internal Server Error"),
    ("KeyError: 'quantity'", "KeyError: 'quantity'"),
    (
        "jwt.exceptions.InvalidTokenError: not enough segments",
        "jwt.exceptions.InvalidTokenError: not enough segments",
    ),
    ("std::session::Session::new", "std::session::Session::new"),
    ("https://shop.example/a?b=c", "https://shop.example/a?b=c"),
    ("https://shop.example:8443/@me", "https://shop.example:8443/@me"),
    ("mixed ümläut — €5: ok", "mixed ümläut — €5: ok"),
    ("token: null, auth=true", "token: null, auth=true"),
    ("duplicate key value violates unique constraint", "duplicate key value violates unique constraint"),
    // Pairs.
    ("password=hunter2", "password=[Filtered]"),
    ("login failed, password = hunter2, user = bob", "login failed, password = [Filtered], user = bob"),
    ("PassWord: hunter2", "PassWord: [Filtered]"),
    ("db_passwd:hunter2", "db_passwd:[Filtered]"),
    ("{\"password\": \"hunter2\", \"user\": \"bob\"}", "{\"password\": \"[Filtered]\", \"user\": \"bob\"}"),
    ("{\"password\":\"hun\\\"ter2\",\"a\":1}", "{\"password\":\"[Filtered]\",\"a\":1}"),
    ("{\"pin_token\":123456,\"a\":1}", "{\"pin_token\":[Filtered],\"a\":1}"),
    ("{\"token\":123456}", "{\"token\":[Filtered]}"),
    (
        "{\"body\": \"{\\\"password\\\": \\\"hunter2\\\", \\\"a\\\": 1}\"}",
        "{\"body\": \"{\\\"password\\\": \\\"[Filtered]\\\", \\\"a\\\": 1}\"}",
    ),
    ("{'api_key': 'a\"b', 'x': 1}", "{'api_key': '[Filtered]', 'x': 1}"),
    ("{'api_key': b'abc'}", "{'api_key': [Filtered]'}"),
    (":password=>\"hunter2\", :a=>1", ":password=>\"[Filtered]\", :a=>1"),
    ("'secret' => 'x y z'", "'secret' => '[Filtered]'"),
    ("Config { password: Some(\"hunter2\"), a: 1 }", "Config { password: [Filtered], a: 1 }"),
    ("\"tokens\": [\"a\", \"b\"], \"c\": 1", "\"tokens\": [Filtered], \"c\": 1"),
    ("\"credentials\": {\"user\": \"a\", \"pw\": \"}\"}, \"c\": 1", "\"credentials\": [Filtered], \"c\": 1"),
    ("\"password\": \"never closed", "\"password\": \"[Filtered]"),
    ("Server=db;Password=hunter2;Database=x", "Server=db;Password=[Filtered];Database=x"),
    ("password = \"\"\"triple\"\"\" and on", "password = \"[Filtered]\" and on"),
    ("user[password]=hunter2", "user[password]=[Filtered]"),
    (
        "<soap:Password type=\"x\">hunter2</soap:Password>",
        "<soap:Password type=\"x\">[Filtered]</soap:Password>",
    ),
    ("geheim_password_é: geheim", "geheim_password_é: [Filtered]"),
    // Queries.
    (
        "GET https://h/x?access_token=abc&page=2 failed",
        "GET https://h/x?access_token=[Filtered]&page=2 failed",
    ),
    ("href=\"/x?token=abc\" said", "href=\"/x?token=[Filtered]\" said"),
    ("next=https%3A%2F%2Fh%3Ftoken%3Dabc%26page%3D2", "next=https%3A%2F%2Fh%3Ftoken%3D[Filtered]%26page%3D2"),
    // Headers.
    ("Authorization: Bearer abc.def", "Authorization: [Filtered]"),
    ("Authorization: Basic dTpw\nHost: h", "Authorization: [Filtered]\nHost: h"),
    ("authorization=Bearer abcdef more", "authorization=[Filtered] more"),
    ("Cookie: a=b; c=d\r\nHost: h", "Cookie: [Filtered]\r\nHost: h"),
    ("Set-Cookie: sid=abc; Path=/", "Set-Cookie: [Filtered]"),
    ("X-Api-Key: abc def", "X-Api-Key: [Filtered] def"),
    // Looks.
    ("rejected Bearer s3cr3t-t0ken today", "rejected Bearer [Filtered] today"),
    ("Bearer authentication required", "Bearer authentication required"),
    ("tried basic dXNlcjpwYXNz", "tried basic [Filtered]"),
    ("the basic information", "the basic information"),
    ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln today", "got [Filtered] today"),
    ("eyJ. eyJhbGci eyJ.x", "eyJ. eyJhbGci eyJ.x"),
    ("postgres://bob:hunter2@db/shop", "postgres://[Filtered]@db/shop"),
    ("amqp://bob:hun/ter#2@mq:5672/", "amqp://[Filtered]@mq:5672/"),
    ("https://ghp_x@github.example/r.git", "https://[Filtered]@github.example/r.git"),
    ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
    ("root:hunter2@tcp(db:3306)/shop", "root:[Filtered]@tcp(db:3306)/shop"),
    ("id AKIAIOSFODNN7EXAMPLE gone", "id [Filtered] gone"),
    ("with sk_live_4eC39HqLyjWDarjt", "with [Filtered]"),
    ("task_live_4eC39HqLyjWDarjt", "task_live_4eC39HqLyjWDarjt"),
    ("ghp_16C7e42F292c6912E7710c838347Ae178B4a.", "[Filtered]"),
    ("xoxb-123456789-abcdef", "[Filtered]"),
    ("card 4111 1111 1111 1111 12/29", "card [Filtered] 12/29"),
    ("card 4111-1111-1111-1111, 5500005555555559", "card [Filtered], [Filtered]"),
    ("card 378282246310005 2028", "card [Filtered] 2028"),
    ("order 4111111111111112 at 1700000000000000000", "order 4111111111111112 at 1700000000000000000"),
    ("id 4111111111111111a", "id 4111111111111111a"),
    ("-----BEGIN CERTIFICATE-----\nMII", "-----BEGIN CERTIFICATE-----\nMII"),
    ("pem -----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- end", "pem [Filtered] end"),
    ("-----BEGIN PRIVATE KEY-----\nMII", "[Filtered]"),
    ("cannot open postgres://bob:hunTer", "cannot open postgres://[Filtered]"),
    ("cannot open postgres://bob:hunTer…", "cannot open postgres://[Filtered]"),
    ("cannot open http://db:5432", "cannot open http://db:5432"),
    // Names that were missing.
    ("https://h/x?sig=hunTer&a=1", "https://h/x?sig=[Filtered]&a=1"),
    ("X-Amz-Credential=hunTer", "X-Amz-Credential=[Filtered]"),
    (
        "passphrase: hunTer, smsOtp=1234, card_cvv: 123",
        "passphrase: [Filtered], smsOtp=[Filtered], card_cvv: [Filtered]",
    ),
    ("design=flat, shipping: fast, bypass=no", "design=flat, shipping: fast, bypass=no"),
    ("config[\"password\"] = \"hunTer\"", "config[\"password\"] = \"[Filtered]\""),
    ("password != \"hunTer\"", "password != \"[Filtered]\""),
    ("('password', 'hunTer')", "('password', '[Filtered]')"),
    ("[\"password\",\"hunTer\"]", "[\"password\",\"[Filtered]\"]"),
    ("<add name=\"password\" value=\"hunTer\"/>", "<add name=\"password\" value=\"[Filtered]\"/>"),
    ("<add value=\"hunTer\" name=\"password\"/>", "<add value=\"[Filtered]\" name=\"password\"/>"),
    ("Digest username=\"bob\", response=\"hunTer\"", "Digest username=\"bob\", response=\"[Filtered]\""),
    ("Key (token)=(hunTer) already exists", "Key (token)=[Filtered] already exists"),
    // Sentences and commands.
    ("invalid token hunTer2x", "invalid token [Filtered]"),
    ("Token 'hunTer' has expired.", "Token '[Filtered]' has expired."),
    ("using password hunTer2.", "using password [Filtered]."),
    ("Password for bob: hunTer2", "Password for bob: [Filtered]"),
    ("the api_key was \"hunTer2\"", "the api_key was \"[Filtered]\""),
    ("mysql --password hunTer -h db", "mysql --password [Filtered] -h db"),
    ("curl -u bob:hunTer https://h", "curl -u bob:[Filtered] https://h"),
    ("sqlplus scott/hunTer@//db:1521/x", "sqlplus scott/[Filtered]@//db:1521/x"),
    ("jdbc:oracle:thin:scott/hunTer@db:1521:x", "jdbc:oracle:thin:scott/[Filtered]@db:1521:x"),
    (
        "INSERT INTO users (name, password) VALUES ('bob', 'hun)Ter') -- x",
        "INSERT INTO users (name, password) VALUES ([Filtered]) -- x",
    ),
    ("INSERT INTO items (name) VALUES ('bob')", "INSERT INTO items (name) VALUES ('bob')"),
    ("password is required", "password is required"),
    ("token has expired", "token has expired"),
    ("key not found", "key not found"),
    ("KeyError: 'user'", "KeyError: 'user'"),
    ("Undefined array key \"user\"", "Undefined array key \"user\""),
    ("Unexpected token 'export'", "Unexpected token 'export'"),
    ("(token `JsonToken.START_OBJECT`)", "(token `JsonToken.START_OBJECT`)"),
    ("mail bob/a@example.com", "mail bob/a@example.com"),
    // What is encoded, once or twice.
    ("next=%252Fp%253Ftoken%253DhunTer%2526a", "next=%252Fp%253Ftoken%253D[Filtered]%2526a"),
    ("next=https%3A%2F%2Fbob%3AhunTer%40h", "next=https://[Filtered]@h"),
    ("q=%7B%22password%22%3A%22hunTer%22%7D ok", "q={\"password\":\"[Filtered]\"} ok"),
    ("50% of 100%25", "50% of 100%25"),
];

/// Lines of source, and what is shown of them.
const LINES: &[(&str, &str)] = &[
    ("order = orders['42']", "order = orders['42']"),
    ("config[\"password\"] = \"hunTer\"", "config[\"[Filtered]\"] = \"[Filtered]\""),
    ("os.environ[\"DB_PASSWORD\"] = f\"hunTer\"", "os.environ[\"[Filtered]\"] = f\"[Filtered]\""),
    ("settings['SECRET_KEY'] = 'hunTer'", "settings['[Filtered]'] = '[Filtered]'"),
    ("password: str = \"hunTer\"", "password: [Filtered] = \"[Filtered]\""),
    ("const password: string = `hunTer`", "const password: [Filtered] = `[Filtered]`"),
    ("var password = @\"hun\\\";", "var password = [Filtered]\";"),
    ("$config[\"password\"] => \"hunTer\"", "$config[\"[Filtered]\"] => \"[Filtered]\""),
    ("headers.put(\"X-Api-Key\", \"hun\\\"Ter\")", "headers.put(\"[Filtered]\", \"[Filtered]\")"),
    ("password != \"hunTer\"", "password != \"[Filtered]\""),
    ("auth.login(\"bob\", \"hunTer\")", "auth.login(\"[Filtered]\", \"[Filtered]\")"),
    ("login(\"bob\", \"x\")", "login(\"bob\", \"x\")"),
    ("token = \"\"\"hun\"Ter\"\"\"", "token = \"[Filtered]\""),
    ("token = \"\" or 'hunTer", "token = \"\" or '[Filtered]"),
];

#[test]
fn lines_of_source_that_name_a_secret_are_shown_without_strings() {
    for (given, shown) in LINES {
        assert_eq!(code(given), *shown, "of {given}");
        assert!(!code(given).contains("hun"), "{given}");
    }
}

#[test]
fn paths_are_shown_without_secret_segments() {
    for (given, shown) in [
        ("", ""),
        ("/", "/"),
        ("/orders/42/items", "/orders/42/items"),
        ("/login/callback", "/login/callback"),
        ("/tokens/{id}", "/tokens/{id}"),
        ("/reset/hunTer2/now", "/reset/[Filtered]/now"),
        ("/password-reset/hunTer", "/password-reset/[Filtered]"),
        ("/api/token/12345678", "/api/token/[Filtered]"),
        ("/token/v2/x", "/token/v2/x"),
        ("/token%2FhunTer2", "/[Filtered]"),
        ("/token%252FhunTer2", "/[Filtered]"),
        ("/a%2Ftoken/hunTer2", "/a%2Ftoken/[Filtered]"),
        ("/t%6fken/hunTer2", "/t%6fken/[Filtered]"),
        ("/users/bob@example.com/mail", "/users/[Filtered]/mail"),
        ("/users/bob%40example.com", "/users/[Filtered]"),
        ("/x/eyJhbGci.eyJzdWIi.c2ln/y", "/x/[Filtered]/y"),
        ("/x;password=hunTer/y", "/[Filtered]/y"),
        ("/x/sk_live_4eC39HqLyjWDarjt", "/x/[Filtered]"),
    ] {
        assert_eq!(path(given), shown, "of {given}");
        assert_eq!(path(shown), shown, "what is clean stays");
    }
    assert!(matches!(path("/orders/42"), Cow::Borrowed(_)));
}

/// How many bytes were looked at, apart from the walk itself.
fn looked_at(text: &str) -> usize {
    let mut scan = Scan::of(text);
    let mut at = 0;
    while at < text.len() {
        at = scan.secret_at(at).map_or(at + 1, |secret| secret.end);
    }
    scan.looked.get()
}

#[test]
fn twice_the_text_is_twice_the_work() {
    for piece in [
        "basic+",
        "basic ",
        "bearer+",
        "token ",
        "password for ",
        "values (",
        "values ",
        "('key',",
        "scott/",
        "-u a ",
        "--key ",
        "<a value=",
        "%253D",
        "://a:",
    ] {
        let of = |length: usize| looked_at(&piece.repeat(length / piece.len()));
        let (half, whole) = (of(32 * 1024), of(64 * 1024));
        assert!(whole <= 3 * half + 1024, "{piece}: {half}, then {whole}");
    }
}

#[test]
fn texts_are_shown_without_their_secrets() {
    let wrong: Vec<_> = TEXTS
        .iter()
        .map(|(given, shown)| (given, text(given), shown))
        .filter(|(_, is, shown)| is != *shown)
        .collect();
    assert!(wrong.is_empty(), "given, is, should be: {wrong:#?}");
}

#[test]
fn what_has_no_secret_is_not_copied() {
    assert!(matches!(text("bad quantity: -3"), Cow::Borrowed(_)));
    assert!(matches!(query("page=2&sort=name"), Cow::Borrowed(_)));
}

#[test]
fn headers_are_shown_by_their_names() {
    let list: &[(&str, &str, &str)] = &[
        ("content-type", "application/json; charset=utf-8", "application/json; charset=utf-8"),
        ("authorization", "Bearer x", FILTERED),
        ("x-api-key", "x", FILTERED),
        ("proxy-authenticate", "Basic realm=\"x\"", FILTERED),
        ("x-forwarded-for", "203.0.113.9", FILTERED),
        ("forwarded", "for=203.0.113.9", FILTERED),
        ("x-real-ip", "203.0.113.9", FILTERED),
        ("true-client-ip", "203.0.113.9", FILTERED),
        ("remote-addr", "203.0.113.9", FILTERED),
        ("via", "1.1 bobs-laptop", FILTERED),
        ("x-note", "plain", FILTERED),
        ("x-session-hint", "hunTer", FILTERED),
        ("content-token", "hunTer", FILTERED),
        ("access-control-allow-credentials", "true", "true"),
        ("if-none-match", "\"abc\"", "\"abc\""),
        ("user-agent", "curl/8 postgres://bob:x@db", "curl/8 postgres://[Filtered]@db"),
        ("host", "bob:hunTer@h", "bob:[Filtered]@h"),
        ("x-request-id", "req-42.a:b", "req-42.a:b"),
        ("x-request-id", "Bearer hunTer", FILTERED),
        ("x-correlation-id", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", FILTERED),
        ("baggage", "user=hunTer, a=b;c=d,hunTer", "user=[Filtered],a=[Filtered],[Filtered]"),
        (
            "link",
            "<https://h/a?b=c>; rel=next, </reset/hunTer2>",
            "<https://h/a?b=[Filtered]>; rel=next, </reset/[Filtered]>",
        ),
        ("refresh", "5; url=/reset/hunTer2?a=b", "5; url=/reset/[Filtered]?a=[Filtered]"),
        ("x-original-uri", "/reset/hunTer2?a=b", "/reset/[Filtered]?a=[Filtered]"),
        ("referer", "https://h/token/hunTer2", "https://h/token/[Filtered]"),
        ("cookie", "abc123def456=x; theme_2=y", "[Filtered]; theme_2=[Filtered]"),
        ("set-cookie", "a=b; Path=/reset/hunTer2", "a=[Filtered]; Path=/reset/[Filtered]"),
        ("cookie", "theme=dark; sid=abc;raw", "theme=[Filtered]; sid=[Filtered]; [Filtered]"),
        ("set-cookie", "sid=abc; Path=/; HttpOnly; x=y", "sid=[Filtered]; Path=/; HttpOnly; x=[Filtered]"),
        ("set-cookie", "path=abc", "path=[Filtered]"),
        ("referer", "https://u:p@h/a?b=c&d#e", "https://h/a?b=[Filtered]&[Filtered]#[Filtered]"),
        ("location", "/login?next=%2Fme", "/login?next=[Filtered]"),
        ("location", "/cb#access_token=abc", "/cb#[Filtered]"),
    ];
    for (name, value, shown) in list {
        assert_eq!(header(name, value.as_bytes()), *shown, "of {name}: {value}");
    }
    assert_eq!(header("user-agent", b"a\xff"), "a\u{fffd}");
}

#[test]
fn queries_keep_their_keys() {
    assert_eq!(
        query("page=2&access_token=abc&t%6fken=x&sid="),
        "page=2&access_token=[Filtered]&t%6fken=[Filtered]&sid="
    );
    assert_eq!(query("q=eyJhbGci.eyJz.x&&b"), "q=[Filtered]&&b");
}

/// Texts that make a careless reader look at everything over and over. In a debug build a second is plenty for each; what
/// is quadratic takes minutes.
#[test]
fn long_texts_take_no_longer_than_their_length() {
    let pieces = [
        "://",
        "://a:b/",
        "a:b",
        "eyJ",
        "eyJ.",
        "eyJaaaa",
        "key=",
        "key==",
        "key=\\",
        "\\",
        "\\\"",
        "\"key\":",
        "key=[",
        "key=(\"",
        "<key",
        "<key>",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN ",
        "4111 ",
        "4",
        "4 ",
        "bearer ",
        "basic a",
        "Cookie:",
        "sk-",
        "key=\"",
        "key='\\\"",
        "key=basic ",
        "key:\t",
        "key,",
        "key=a,",
        "[",
        "@",
        "é",
        "%3D",
        "key%3D",
        "AKIA",
    ];
    let started = std::time::Instant::now();
    for piece in pieces {
        for before in ["", "key=", "token: \"", "https://a:b"] {
            let long = format!("{before}{}", piece.repeat(100_000 / piece.len()));
            let _ = (text(&long), code(&long), path(&long), query(&long), header("referer", long.as_bytes()));
        }
    }
    assert!(started.elapsed().as_secs() < 60, "it took {:?}", started.elapsed());
}

/// A name that is denied, with something around it.
fn names() -> impl Strategy<Value = String> {
    let affix = "([a-z]{1,6}[_-])?";
    (affix, proptest::sample::select(&DENIED[..]), "([_-][a-z0-9]{1,5})?", any::<bool>()).prop_map(
        |(before, word, after, upper)| {
            let name = format!("{before}{word}{after}");
            if upper { name.to_uppercase() } else { name }
        },
    )
}

/// Ways to write a pair of a name and a secret.
fn written(name: &str, secret: &str, shape: usize) -> String {
    match shape {
        0 => format!("{name}={secret}"),
        1 => format!("{name}: {secret}"),
        2 => format!("{{\"a\": 1, \"{name}\": \"{secret}\", \"b\": 2}}"),
        3 => format!("{{'{name}': '{secret}'}}"),
        4 => format!("'{name}' => \"{secret}\","),
        5 => format!("{{\"x\": \"{{\\\"{name}\\\":\\\"{secret}\\\"}}\"}}"),
        6 => format!("https://h/p?a=b&{name}={secret}&c=d"),
        7 => format!("a=b;{name}={secret};c=d"),
        8 => format!("<{name}>{secret}</{name}>"),
        9 => format!("user[{name}]={secret}"),
        10 => format!("{name} = \"a b {secret}\""),
        11 => format!("\"{name}\": [\"a\", \"{secret}\"]"),
        12 => format!("\"{name}\": {{\"a\": {{\"b\": \"{secret}\"}}}}"),
        13 => format!("{name}: Some(\"{secret}\")"),
        14 => format!("next=%2Fp%3F{name}%3D{secret}%26c"),
        15 => format!("{name}: Bearer {secret}"),
        16 => format!("{name}=b'{secret}'"),
        17 => format!("{name}=[\"x\", {{\"y\": {secret}}}]"),
        18 => format!("\"{name}\":\"a\\\"b{secret}\""),
        _ => format!("{name}:={secret}"),
    }
}

proptest! {
    #[test]
    fn no_secret_under_a_denied_name_comes_through(
        name in names(), secret in "S3[A-Za-z0-9]{10,30}", shape in 0..20_usize,
        before in "\\PC{0,12}", after in "\\PC{0,12}",
    ) {
        let given = format!("{before} {} {after}", written(&name, &secret, shape));
        let shown = text(&given);
        prop_assert!(!shown.contains(&secret), "{given:?} is shown as {shown:?}");
    }

    #[test]
    fn no_secret_in_a_denied_header_or_query_comes_through(name in names(), secret in "S3[A-Za-z0-9]{10,30}") {
        let name = name.to_ascii_lowercase();
        let value = format!("a={secret}; b; {secret}");
        prop_assert!(!header(&name, value.as_bytes()).contains(&secret));
        let url = format!("https://u:{secret}@h/p?q={secret}&{secret}#{secret}");
        prop_assert!(!header("referer", url.as_bytes()).contains(&secret));
        prop_assert!(!header("cookie", value.as_bytes()).contains(&secret));
        let pairs = format!("a=b&{name}={secret}");
        prop_assert!(!query(&pairs).contains(&secret));
    }

    #[test]
    fn any_text_is_cleaned_without_a_panic_and_cleaning_it_again_shows_no_more(
        given in "(\\PC|[\"'`:=;,&@%<>{}()\\[\\]\\\\ \n]|key|token=|://|eyJ|%3D|Bearer |-----BEGIN PRIVATE KEY-----|[0-9]){0,60}",
    ) {
        let once = text(&given).into_owned();
        let twice = text(&once).into_owned();
        prop_assert!(twice.len() <= once.len() + FILTERED.len() * given.len());
        let _ = (code(&given).len(), path(&given).len());
        let _ = (query(&given).len(), header("referer", given.as_bytes()).len(), header("cookie", given.as_bytes()).len());
    }

    #[test]
    fn any_bytes_of_a_header_are_cleaned_without_a_panic(value in proptest::collection::vec(any::<u8>(), 0..80)) {
        for name in ["user-agent", "referer", "link", "refresh", "baggage", "x-request-id", "cookie", "set-cookie", "x-note"] {
            let _ = header(name, &value);
        }
    }
}

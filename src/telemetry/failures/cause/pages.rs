//! Error pages in HTML: which framework or server wrote them, and where it puts what went wrong.

use super::html::{Page, element};
use super::{Cause, phrase, text, traceback};

/// A page, whole and as it came.
struct Seen<'a> {
    html: &'a str,
    page: Page,
}

/// Reads what is special about a page.
type Reader = fn(&Seen) -> Cause;

/// Pages by what only they have in them, the narrower ones first. A page that nobody has to say more of is told by
/// its trace.
const PAGES: [(&str, &str, Reader); 31] = [
    ("class=\"exception_value\"", "django", django),
    ("<h1>Server Error (500)</h1>", "django", nothing),
    ("// Werkzeug Debugger", "werkzeug", |seen| named(&seen.page.title.replace(" // Werkzeug Debugger", ""))),
    ("<!doctype html>\n<html lang=en>\n<title>", "werkzeug", |seen| message(line_below_heading(seen))),
    ("class=\"traceback-container\"", "starlette", starlette),
    ("<tt>&#039;", "bottle", |seen| message(element(seen.html, "<pre>"))),
    ("<h2>Traceback:</h2>", "aiohttp", nothing),
    ("Server got itself in trouble\n</body>", "aiohttp", nothing),
    ("</title><body>5", "tornado", |seen| {
        message(seen.page.title.split_once(": ").map(|(_, rest)| rest.to_owned()))
    }),
    ("<h1><p>Internal Server Error</p></h1>", "gunicorn", nothing),
    ("--sanic-", "sanic", nothing),
    ("<title>Error</title>\n</head>\n<body>\n<pre>", "express", |seen| message(element(seen.html, "<pre>"))),
    ("id=\"__NEXT_DATA__\"", "next", next),
    ("You're seeing this error because you use <code>Rack::ShowExceptions", "rack", rack),
    ("/__sinatra__/", "sinatra", rack),
    ("<title>Action Controller: Exception caught</title>", "rails", rails),
    ("We're sorry, but something went wrong", "rails", nothing),
    ("Whitelabel Error Page", "spring", spring),
    ("<h1>HTTP Status ", "tomcat", |seen| message(labelled(&seen.page.text, "Message"))),
    ("<th>STATUS:</th>", "jetty", |seen| named(&element(seen.html, "<th>MESSAGE:</th>").unwrap_or_default())),
    ("rawExceptionStackTrace", "aspnet", |seen| {
        named(&element(seen.html, "class=\"titleerror\"").unwrap_or_default())
    }),
    ("exception-message-wrapper", "symfony", symfony),
    ("Oops! An Error Occurred</h1>", "symfony", nothing),
    ("window.ignite", "laravel", nothing),
    ("Whoops! There was an error", "laravel", nothing),
    ("<b>Fatal error</b>:", "php", verbatim),
    ("<hr><center>nginx", "nginx", nothing),
    ("<hr><center>openresty", "nginx", nothing),
    ("No server is available to handle this request.", "haproxy", nothing),
    ("<address>Apache", "apache", nothing),
    ("Error code explanation:", "python", |seen| message(labelled(&seen.page.text, "Message:"))),
];

pub(super) fn read(html: &str) -> Option<Cause> {
    // What has no tags is text, whatever it is called.
    if !html.contains('<') {
        return text::read(html);
    }
    let seen = Seen { html, page: Page::parse(html) };
    let trace =
        traceback::find(&seen.page.comments).or_else(|| traceback::find(&seen.page.text)).unwrap_or_default();
    let known = PAGES.iter().find(|(mark, _, _)| html.contains(mark));
    let Some((_, source, reader)) = known else {
        let told = if trace.says_something() { trace } else { message(headline(&seen.page)) };
        let told = Cause { source: "html", ..told };
        return told.says_something().then_some(told);
    };
    let mut said = reader(&seen);
    said.message = said.message.filter(|message| !phrase::is_empty_talk(message));
    // A trace in which the exception is named knows its type best; the page can have shortened it.
    let mut cause =
        if said.frames.is_empty() && trace.kind.is_some() { trace.or(said) } else { said.or(trace) };
    cause.source = source;
    Some(cause)
}

fn nothing(_: &Seen) -> Cause {
    Cause::default()
}

fn message(text: Option<String>) -> Cause {
    Cause { message: text, ..Cause::default() }
}

/// `Type: message`.
fn named(text: &str) -> Cause {
    match phrase::exception(text) {
        Some((kind, rest)) => Cause { kind: Some(kind.to_owned()), ..message(Some(rest.to_owned())) },
        None => message(Some(text.to_owned()).filter(|text| !text.is_empty())),
    }
}

/// The title, or else the heading, of a page of which nothing else is known.
fn headline(page: &Page) -> Option<String> {
    [&page.title, &page.heading].into_iter().find(|text| !phrase::is_empty_talk(text)).cloned()
}

/// What follows the line that begins with `label`, or the rest of that line.
fn labelled(text: &str, label: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(label))?;
    Some(line.trim().to_owned()).filter(|line| !line.is_empty())
}

fn line_below_heading(seen: &Seen) -> Option<String> {
    element(seen.html, "<p>").filter(|line| !phrase::is_empty_talk(line))
}

fn django(seen: &Seen) -> Cause {
    // The title breaks before "at", and the path can have anything in it.
    let kind = [&seen.page.heading, &seen.page.title].into_iter().find_map(|line| line.split_once(" at "));
    let kind = kind.map(|(kind, _)| kind.to_owned());
    Cause { kind, ..message(element(seen.html, "class=\"exception_value\"")) }
}

/// The frames begin with the innermost; a button follows each.
fn starlette(seen: &Seen) -> Cause {
    let mut frames = traceback::find(&seen.page.text).unwrap_or_default().frames;
    frames.reverse();
    for frame in &mut frames {
        frame.function = frame.function.as_deref().and_then(|name| name.split(' ').next()).map(str::to_owned);
    }
    Cause { frames, ..named(&seen.page.subheading) }
}

/// A trace that is laid out by its white space outside of `pre`.
fn verbatim(seen: &Seen) -> Cause {
    traceback::find(&Page::parse(&format!("<pre>{}", seen.html)).text).unwrap_or_default()
}

/// Next.js puts the error into the data of the page in development.
fn next(seen: &Seen) -> Cause {
    let data = seen.html.split_once("id=\"__NEXT_DATA__\"").and_then(|(_, rest)| rest.split_once('>'));
    let data = data.and_then(|(_, rest)| rest.split_once("</script>"));
    let value =
        data.and_then(|(json, _)| serde_json::from_str::<serde_json::Value>(json).ok()).unwrap_or_default();
    value.get("err").and_then(|err| super::json::read(&err.to_string(), false, false)).unwrap_or_default()
}

/// `OrderError at /orders/42`, the message below; frames without a line, the innermost first.
fn rack(seen: &Seen) -> Cause {
    let kind = seen.page.heading.split_once(" at ").map(|(kind, _)| kind.to_owned());
    let frames = seen.page.text.lines().filter_map(|line| {
        let (file, function) = line.split_once(": in ").or_else(|| line.split_once(" in "))?;
        let is_file = file.contains(".r") && !file.contains(' ');
        // The place is told once more above the frames, with its line.
        (is_file && !function.contains(", line ")).then(|| super::StackFrame::new(file, None, Some(function)))
    });
    let mut frames: Vec<_> = frames.collect();
    frames.reverse();
    // Rack writes `file: in function, line 7` there, and Sinatra `line: 7`.
    let line = seen.page.text.lines().find_map(|line| {
        let behind = line.split_once(", line ").map(|(_, behind)| behind);
        behind.or_else(|| line.trim().strip_prefix("line:"))?.trim().parse().ok()
    });
    if let Some(innermost) = frames.last_mut() {
        innermost.line = line;
    }
    Cause { kind, frames, ..message(Some(seen.page.subheading.clone())) }
}

fn rails(seen: &Seen) -> Cause {
    let kind = seen.page.heading.split_once(" in ").map(|(kind, _)| kind.to_owned());
    let said = element(seen.html, "<div class=\"message\"").or_else(|| Some(seen.page.subheading.clone()));
    Cause { kind, ..message(said) }
}

/// The line after `There was an unexpected error (type=…)`.
fn spring(seen: &Seen) -> Cause {
    let mut lines =
        seen.page.text.lines().skip_while(|line| !line.starts_with("There was an unexpected error"));
    message(lines.nth(1).map(str::to_owned).filter(|line| !line.is_empty())).or(verbatim(seen))
}

/// The frames of the first exception, which is the outermost: `in /srv/app/shop.php (line 5)`, innermost first.
fn symfony(seen: &Seen) -> Cause {
    let kind = element(seen.html, "class=\"trace-class\"");
    let first = seen.html.split("class=\"trace trace-as-html\"").nth(1).unwrap_or_default();
    let text = Page::parse(first).text;
    let frames = text.lines().filter_map(|line| {
        let (call, place) = line.split_once("in ")?;
        let (file, line) = place.trim().split_once(" (line ")?;
        let (line, _) = line.split_once(')')?;
        let function = call.split('(').next();
        Some(super::StackFrame::new(file, line.parse().ok(), function))
    });
    let mut frames: Vec<_> = frames.collect();
    frames.reverse();
    Cause { kind, frames, ..message(Some(seen.page.heading.clone())) }
}

//! Stack traces in text, as the languages print them.
//!
//! Each language is looked for by the frames that only it writes, so what stands around a trace does not matter: it
//! may be a whole answer, one member of a JSON object, or the text of an HTML page.

mod at;
mod go;
mod php;
mod python;
mod ruby;

use super::Cause;

/// The first language whose frames are in `text`, with the type and the message that stand beside them.
pub(super) fn find(text: &str) -> Option<Cause> {
    let lines: Vec<&str> = text.lines().collect();
    python::find(&lines)
        .or_else(|| php::find(&lines))
        .or_else(|| at::find(&lines))
        .or_else(|| ruby::find(&lines))
        .or_else(|| go::find(&lines))
}

/// The number at the start of `text`, and what follows it.
fn leading_number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source, type, message, and the frames as `file:line function`, a star before those of the service.
    fn told(text: &str) -> (&'static str, String, String, Vec<String>) {
        let cause = find(text).expect("a trace");
        let frames = cause.frames.iter().map(|frame| {
            let line = frame.line.map_or_else(String::new, |line| format!(":{line}"));
            let star = if frame.in_app { "*" } else { "" };
            format!("{star}{}{line} {}", frame.file, frame.function.as_deref().unwrap_or("-"))
        });
        (cause.source, cause.kind.unwrap_or_default(), cause.message.unwrap_or_default(), frames.collect())
    }

    #[test]
    fn the_last_raised_of_chained_exceptions_counts_in_python() {
        let (source, kind, message, frames) = told(
            "Traceback (most recent call last):\n  File \"/srv/app/a.py\", line 1, in load\n    rows[1]\nKeyError: 1\n\n\
             During handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n\
             \x20 File \"/srv/app/a.py\", line 4, in read\n    raise Lost(1)\nshop.Lost: order 1\nsecond line\n",
        );
        assert_eq!((source, &*kind, &*message), ("python", "shop.Lost", "order 1"));
        assert_eq!(frames, ["*/srv/app/a.py:4 read"]);
    }

    #[test]
    fn a_group_of_exceptions_gives_the_one_inside() {
        let (_, kind, message, frames) = told(
            "  + Exception Group Traceback (most recent call last):\n  |   File \"/srv/app/a.py\", line 1, in all\n\
             \x20 | ExceptionGroup: unhandled errors (1 sub-exception)\n  +-+---------------- 1 ----------------\n\
             \x20   | Traceback (most recent call last):\n    |   File \"/srv/app/a.py\", line 9, in one\n    | ValueError: bad\n\
             \x20   +------------------------------------\n",
        );
        assert_eq!((&*kind, &*message), ("ValueError", "bad"));
        assert_eq!(frames, ["*/srv/app/a.py:9 one"]);
    }

    #[test]
    fn a_cut_trace_gives_the_frames_that_are_there() {
        let (_, kind, _, frames) =
            told("Traceback (most recent call last):\n  File \"/srv/app/a.py\", line 1, in load\n    ro");
        assert_eq!((&*kind, frames), ("", vec!["*/srv/app/a.py:1 load".to_owned()]));
    }

    #[test]
    fn the_root_cause_speaks_where_the_outermost_java_exception_is_silent() {
        let trace = |first: &str| {
            format!(
                "{first}\n\tat com.example.Shop.order(Shop.java:22)\n\tat java.base/java.lang.Thread.run(Thread.java:840)\n\
                 Caused by: java.lang.NullPointerException: row is null\n\tat com.example.Shop.load(Shop.java:31)\n\t... 1 more\n"
            )
        };
        let (source, kind, message, frames) =
            told(&trace("Exception in thread \"main\" java.lang.IllegalStateException"));
        assert_eq!((source, &*kind), ("java", "java.lang.IllegalStateException"));
        assert_eq!(message, "java.lang.NullPointerException: row is null");
        assert_eq!(
            frames,
            ["Thread.java:840 java.base/java.lang.Thread.run", "*Shop.java:22 com.example.Shop.order"]
        );
        let (_, _, message, _) = told(&trace("java.lang.IllegalStateException: order 42"));
        assert_eq!(message, "order 42");
    }

    #[test]
    fn a_javascript_stack_is_read_innermost_first() {
        let (source, kind, message, frames) = told(
            "Error: first\nsecond line\n    at new Order (/srv/app/shop.js:2:60)\n    at async file:///srv/app/main.mjs:4:3\n    \
             at Array.map (<anonymous>)\n    at process.processTicksAndRejections (node:internal/process/task_queues:95:5)",
        );
        assert_eq!((source, &*kind, &*message), ("javascript", "Error", "first"));
        assert_eq!(
            frames,
            [
                "node:internal/process/task_queues:95 process.processTicksAndRejections",
                "<anonymous> Array.map",
                "*/srv/app/main.mjs:4 -",
                "*/srv/app/shop.js:2 new Order",
            ]
        );
    }

    #[test]
    fn dotnet_frames_are_those_of_the_outer_exception() {
        let (source, kind, message, frames) = told(
            "System.InvalidOperationException: order 42 cannot be read\n ---> System.NullReferenceException: Object reference\n   \
             at Shop.Orders.Load(Int32 id) in /srv/app/Orders.cs:line 31\n   --- End of inner exception stack trace ---\n   \
             at Shop.Orders.Read(Int32 id) in /srv/app/Orders.cs:line 22\n   at Microsoft.AspNetCore.Run(HttpContext c)\n",
        );
        assert_eq!((source, &*kind), ("dotnet", "System.InvalidOperationException"));
        assert_eq!(message, "order 42 cannot be read");
        assert_eq!(
            frames,
            [" Microsoft.AspNetCore.Run(HttpContext c)", "*/srv/app/Orders.cs:22 Shop.Orders.Read(Int32 id)"]
        );
    }

    #[test]
    fn ruby_names_the_exception_before_the_trace_or_in_its_first_line() {
        let frames = vec!["*main.rb:9 <main>".to_owned(), "*/srv/app/shop.rb:7 read".to_owned()];
        let before = told("OrderError: order 42\n\t/srv/app/shop.rb:7:in `read'\n\tmain.rb:9:in `<main>'\n");
        assert_eq!(before, ("ruby", "OrderError".to_owned(), "order 42".to_owned(), frames.clone()));
        let first =
            told("/srv/app/shop.rb:7:in 'read': order 42 (OrderError)\n\tfrom main.rb:9:in '<main>'\n");
        assert_eq!(first, ("ruby", "OrderError".to_owned(), "order 42".to_owned(), frames));
    }

    #[test]
    fn the_outermost_exception_is_the_last_in_php() {
        let (source, kind, message, frames) = told(
            "PHP Fatal error:  Uncaught DivisionByZeroError: by zero in /srv/app/a.php:3\nStack trace:\n\
             #0 /srv/app/a.php(5): load()\n#1 {main}\n\nNext App\\Lost: order 42 in /srv/app/a.php:5\nStack trace:\n\
             #0 [internal function]: App\\Shop->read()\n#1 /srv/app/b.php(9): call()\n#2 {main}\n  thrown in /srv/app/a.php on line 5\n",
        );
        assert_eq!((source, &*kind, &*message), ("php", "App\\Lost", "order 42"));
        assert_eq!(
            frames,
            ["*/srv/app/b.php:9 call", "[internal function] App\\Shop->read", "*/srv/app/a.php:5 -"]
        );
    }

    #[test]
    fn go_frames_begin_where_it_panicked() {
        let (source, kind, message, frames) = told(
            "panic: no such order\n\ngoroutine 21 [running]:\nmain.recover.func1()\n\t/srv/app/main.go:27 +0x45\n\
             panic({0x6cece0?, 0x9a4b40?})\n\t/usr/local/go/src/runtime/panic.go:860 +0x13a\nmain.(*Shop).load(...)\n\
             \t/srv/app/main.go:16\nmain.main()\n\t/srv/app/main.go:30 +0x6e\n\ngoroutine 1 [chan receive]:\nmain.other()\n\t/x.go:1\n",
        );
        assert_eq!((source, &*kind, &*message), ("go", "panic", "no such order"));
        assert_eq!(frames, ["*/srv/app/main.go:30 main.main", "*/srv/app/main.go:16 main.(*Shop).load"]);
    }

    #[test]
    fn prose_has_no_trace() {
        for text in [
            "at noon (today)",
            "File not found, line 3",
            "look at it",
            "a.b: in c",
            "#1 in sales",
            "goroutines",
        ] {
            assert_eq!(find(text), None, "{text}");
        }
    }
}

//! One stack frame: how it is made, how long it may be, and whose code it is.

use super::{MAX_PART, StackFrame, bounded, phrase, scrub};

/// Parts of the paths of libraries and runtimes.
const LIBRARY_PATHS: [&str; 13] = [
    "site-packages",
    "dist-packages",
    "lib/python",
    "node_modules",
    "/gems/",
    "/rubygems/",
    "/vendor/",
    "/usr/lib/",
    "/usr/share/",
    "/usr/local/go/src/",
    "/pkg/mod/",
    "/usr/local/lib/",
    "/dotnet/",
];

/// How such paths begin. `internal/` only there: in the middle it is the folder that Go projects keep their own code
/// in.
const LIBRARY_STARTS: [&str; 6] = ["node:", "internal/", "vendor/", "<", "[", "lib/ruby"];

/// Packages and namespaces that are not the service's.
const LIBRARY_NAMES: [&str; 21] = [
    "java.",
    "javax.",
    "jakarta.",
    "jdk.",
    "sun.",
    "com.sun.",
    "kotlin.",
    "kotlinx.",
    "scala.",
    "groovy.",
    "org.springframework.",
    "org.apache.",
    "org.eclipse.jetty.",
    "org.hibernate.",
    "io.netty.",
    "io.undertow.",
    "reactor.",
    "com.zaxxer.",
    "com.fasterxml.",
    "System.",
    "Microsoft.",
];

impl StackFrame {
    /// A frame; whose it is, its file and its function tell.
    pub(super) fn new(file: &str, line: Option<u32>, function: Option<&str>) -> StackFrame {
        let function = function.map(str::trim).filter(|function| !function.is_empty());
        let file = file.trim().trim_start_matches("file://");
        StackFrame {
            file: file.to_owned(),
            line,
            function: function.map(str::to_owned),
            code: None,
            in_app: is_in_app(file, function.unwrap_or_default()),
        }
    }

    /// Hides secrets, and then shortens what is too long.
    pub(super) fn bound(&mut self) {
        self.file = cleaned(&self.file);
        self.function = self.function.as_deref().map(cleaned);
        let code = self.code.as_deref().map(str::trim).filter(|code| !code.is_empty());
        self.code = code.map(|code| phrase::shortened(&scrub::code(bounded(code)), MAX_PART));
    }
}

fn cleaned(text: &str) -> String {
    phrase::shortened(&scrub::text(bounded(text)), MAX_PART)
}

fn is_in_app(file: &str, function: &str) -> bool {
    // Where only the function is known, as with most of .NET's frames, it decides alone.
    if file.is_empty() && function.is_empty() {
        return false;
    }
    // Rails names a gem and its version in place of its folder: `actionpack (7.1.2) lib/…`.
    let is_gem =
        file.split_once(" (").is_some_and(|(_, version)| version.starts_with(|c: char| c.is_ascii_digit()));
    // `java.base/java.lang.Thread.run`, `app//com.example.Shop.read`: a module or a loader comes first.
    let name = function.rsplit_once('/').map_or(function, |(_, name)| name);
    !is_gem
        && !LIBRARY_PATHS.iter().any(|part| file.contains(part))
        && !LIBRARY_STARTS.iter().any(|start| file.starts_with(start))
        && !LIBRARY_NAMES.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_libraries_is_not_the_services() {
        for (file, function) in [
            ("/usr/local/lib/python3.11/site-packages/django/views.py", "inner"),
            ("/srv/app/node_modules/express/lib/router.js", "next"),
            ("node:internal/process/task_queues", "x"),
            ("internal/process/next_tick.js", "x"),
            ("<frozen importlib._bootstrap>", "x"),
            ("actionpack (7.1.2) lib/action_controller.rb", "process"),
            ("/usr/local/go/src/net/http/server.go", "net/http.(*conn).serve"),
            ("Thread.java", "java.base/java.lang.Thread.run"),
            ("", "Microsoft.AspNetCore.Routing.EndpointMiddleware.Invoke(HttpContext httpContext)"),
            ("", ""),
        ] {
            assert!(!StackFrame::new(file, None, Some(function)).in_app, "{file} {function}");
        }
        for (file, function) in [
            ("/srv/app/internal/orders/read.go", "example.com/shop/internal/orders.Read"),
            ("Shop.java", "app//com.example.Shop.read"),
            ("/srv/app/views.py", "order"),
        ] {
            assert!(StackFrame::new(file, None, Some(function)).in_app, "{file} {function}");
        }
    }
}

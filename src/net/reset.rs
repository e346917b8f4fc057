//! With which code a stream of HTTP/2 was reset.

use std::error::Error;

/// The code of the stream that `error` is about, if that was reset: by its other end, or by us for what came on it.
pub fn code(error: &(dyn Error + 'static)) -> Option<u32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.reason().filter(|_| error.is_reset()).map(u32::from);
        }
        cause = error.source();
    }
    None
}

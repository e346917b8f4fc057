//! Acknowledges at once what comes from services that wait for it.
//!
//! A server that writes head and content separately, and does not set `TCP_NODELAY`, sends the second only when the first
//! has been acknowledged (Nagle's algorithm). On a connection that is used again and again the kernel delays
//! acknowledgements by 40 ms, in case there is something to send along. Together they cost each answer 40 ms, which a caller
//! with a connection per request, whose first acknowledgements are prompt, would never see: so it must not see it through
//! us. Development servers of several languages are like that.
//!
//! Acknowledging at once costs a packet per answer. So it is done only for a service that has shown the pattern.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;

/// The time from an answer's head to its end that gives the pattern away: Linux' delay, with room for the answer itself.
const SUSPICIOUS: std::ops::RangeInclusive<Duration> = Duration::from_millis(38)..=Duration::from_millis(60);

/// Answers in a row that have to be like that. An answer that takes this long for reasons of its own costs nothing but
/// the packet.
const ENOUGH: u32 = 2;

/// What is known of one service's waiting for acknowledgements.
#[derive(Debug, Default)]
pub(super) struct Acks {
    in_a_row: AtomicU32,
    wanted: AtomicBool,
}

impl Acks {
    /// An answer has ended that long after its head.
    pub(super) fn answered(&self, after: Duration) {
        if SUSPICIOUS.contains(&after) {
            if self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= ENOUGH {
                self.wanted.store(true, Ordering::Relaxed);
            }
        } else if self.in_a_row.load(Ordering::Relaxed) > 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// Something has been read from `stream`: acknowledges it, if the service is one that waits.
    pub(super) fn received(&self, stream: &TcpStream) {
        if self.wanted.load(Ordering::Relaxed) {
            // A kernel that does not know the option leaves us where we were.
            #[cfg(target_os = "linux")]
            let _ = socket2::SockRef::from(stream).set_tcp_quickack(true);
            #[cfg(not(target_os = "linux"))]
            let _ = stream;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pattern_in_a_row_counts() {
        let acks = Acks::default();
        for millis in [41, 3, 41, 200, 0] {
            acks.answered(Duration::from_millis(millis));
            assert!(!acks.wanted.load(Ordering::Relaxed));
        }
        acks.answered(Duration::from_millis(40));
        acks.answered(Duration::from_millis(44));
        assert!(acks.wanted.load(Ordering::Relaxed));
    }
}

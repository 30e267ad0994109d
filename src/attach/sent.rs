//! Messages of pipes that are on their way to a client: what it calls off before it has them goes back.
//!
//! A client says of each that it has it, with its next call. Until then the message is remembered here. When the client goes away, those that have not left go back, and
//! those that have left do not: it may have them.

use std::collections::VecDeque;

use nexus_kernel::GivenMessage;

/// Messages that one client may have on their way, and be remembered; the oldest is taken to have come when there are more. There are no more than calls under way.
const MESSAGES_MAX: usize = 8_192;

/// Bytes of them.
const BYTES_MAX: usize = 16 << 20;

/// The messages of one client, by the numbers of the calls that took them.
#[derive(Default)]
pub(super) struct Sent {
    messages: VecDeque<OnItsWay>,
    bytes: usize,
}

struct OnItsWay {
    number: u64,
    message: GivenMessage,
    length: usize,
    has_left: bool,
}

impl Sent {
    /// The reply to this call is about to leave, and brings what it took, if it took something.
    pub(super) fn note(&mut self, number: u64, taken: Option<GivenMessage>) {
        let Some(mut message) = taken else { return };
        message.is_sent();
        let length = message.message().len();
        self.bytes += length;
        self.messages.push_back(OnItsWay { number, message, length, has_left: false });
        while self.messages.len() > MESSAGES_MAX || self.bytes > BYTES_MAX && self.messages.len() > 1 {
            let Some(oldest) = self.messages.pop_front() else { return };
            self.bytes -= oldest.length;
            oldest.message.keep();
        }
    }

    /// The reply to this call has left.
    pub(super) fn left(&mut self, number: u64) {
        if let Some(one) = self.messages.iter_mut().rfind(|one| one.number == number) {
            one.has_left = true;
        }
    }

    /// The client has what this call took.
    pub(super) fn took(&mut self, number: u64) {
        if let Some(message) = self.remove(number) {
            message.keep();
        }
    }

    /// The client does not wait for the reply to this call any more, and never will have had it.
    pub(super) fn called_off(&mut self, number: u64) {
        drop(self.remove(number));
    }

    fn remove(&mut self, number: u64) -> Option<GivenMessage> {
        let at = self.messages.iter().position(|one| one.number == number)?;
        let one = self.messages.remove(at)?;
        self.bytes -= one.length;
        Some(one.message)
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        // Of those that go back the last first: each goes before those that went before it.
        while let Some(one) = self.messages.pop_back() {
            if one.has_left {
                one.message.keep();
            }
        }
    }
}

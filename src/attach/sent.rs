//! Messages of pipes that are on their way to a client: what it calls off before it has them goes back.
//!
//! A client says of each that it has it, with its next call. Until then the message is remembered here. When the client goes away, those that have not left go back, and
//! those that have left do not: it may have them.

use std::collections::VecDeque;

use nexus_kernel::GivenMessage;

/// Messages that have left for one client and are remembered: the oldest is taken to have come when there are more. Each is until the client says that it has it, with its
/// next call.
const LEFT_MAX: usize = 8_192;

/// Bytes of them. Those that have not left are in the replies that wait, which are bounded.
const LEFT_BYTES_MAX: usize = 16 << 20;

/// The messages of one client, by the numbers of the calls that took them.
#[derive(Default)]
pub(super) struct Sent {
    messages: VecDeque<OnItsWay>,
    /// How many of them have left, and their bytes.
    left: usize,
    left_bytes: usize,
    called_off: Vec<GivenMessage>,
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
        self.messages.push_back(OnItsWay { number, message, length, has_left: false });
    }

    /// The reply to this call has left.
    pub(super) fn left(&mut self, number: u64) {
        let Some(one) = self.messages.iter_mut().rfind(|one| one.number == number) else { return };
        one.has_left = true;
        self.left += 1;
        self.left_bytes += one.length;
        while self.left > LEFT_MAX || self.left_bytes > LEFT_BYTES_MAX && self.left > 1 {
            let oldest = self.messages.iter().position(|one| one.has_left);
            let Some(oldest) = oldest.and_then(|at| self.remove_at(at)) else { return };
            oldest.message.keep();
        }
    }

    /// The client has what this call took.
    pub(super) fn took(&mut self, number: u64) {
        if let Some(one) = self.remove(number) {
            one.message.keep();
        }
    }

    /// The client does not wait for the reply to this call any more, and never will have had it: what it took goes back [together](Self::give_back) with what else is called off.
    pub(super) fn called_off(&mut self, number: u64) {
        if let Some(one) = self.remove(number) {
            self.called_off.push(one.message);
        }
    }

    /// What was called off goes back.
    pub(super) fn give_back(&mut self) {
        // Each goes before those that went before it: so what was taken last comes first.
        self.called_off.sort_by_key(GivenMessage::turn);
        while let Some(last) = self.called_off.pop() {
            drop(last);
        }
    }

    fn remove(&mut self, number: u64) -> Option<OnItsWay> {
        let at = self.messages.iter().position(|one| one.number == number)?;
        self.remove_at(at)
    }

    fn remove_at(&mut self, at: usize) -> Option<OnItsWay> {
        let one = self.messages.remove(at)?;
        if one.has_left {
            self.left -= 1;
            self.left_bytes -= one.length;
        }
        Some(one)
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        for one in std::mem::take(&mut self.messages) {
            match one.has_left {
                true => one.message.keep(),
                false => self.called_off.push(one.message),
            }
        }
        self.give_back();
    }
}

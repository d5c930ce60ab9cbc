//! What another agent may not do.

use crate::frame::FlowId;

/// What the other agent said cannot be. The session is over, and so are its flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A record is not made of frames.
    Malformed,
    /// Bytes beyond the credit, or beyond a stream's end.
    Overrun(FlowId),
    /// An acknowledgement of what was never sent.
    AckOfNothing(FlowId),
    /// An exchange of keys that makes no sense.
    Rekey,
    /// A flow's number that its opener could not have come to.
    FlowFromNowhere(FlowId),
    /// Flow after flow is opened, and that each was reset is not answered.
    ResetsUnheard,
    /// A report of packets that were never sent.
    ReportOfNothing,
}

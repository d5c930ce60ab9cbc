//! The methods that both faces have, written once.
//!
//! `$async` is `async` or nothing; the other parameters name macros of the face that wait for an
//! answer, for a grant, for a lock and for an owner.

/// See the module.
macro_rules! methods {
    ($($async:ident)?; $answer:ident, $grant:ident, $lock:ident, $owner:ident) => {
        /// The number of the session.
        pub fn id(&self) -> SessionId {
            self.handle.id()
        }

        /// How long everything that the session holds stays its own if no renewal is confirmed from
        /// now on; zero when it is lost.
        pub fn valid_for(&self) -> Duration {
            self.handle.valid_for()
        }

        /// Why the session is over, once it is.
        pub fn over(&self) -> Option<Over> {
            self.handle.over()
        }

        /// What happens to the session from now on.
        pub fn events(&self) -> Events {
            Events { queue: self.handle.shared.listen() }
        }

        /// Messages to the session and its names. They are kept from the beginning, up to
        /// [`MESSAGES_MAX`](crate::session::MESSAGES_MAX), so one who comes late misses none.
        pub fn messages(&self) -> Messages {
            Messages { handle: Arc::clone(&self.handle) }
        }

        /// Watches one name: who owns it now, and each change.
        pub fn watch(&self, name: impl AsRef<[u8]>, events: EventMask) -> Watch {
            let filter = name.as_ref().to_vec();
            Watch::new(&self.handle, WatchRequest { filter, events, budget: 0 })
        }

        /// Watches all names that begin with `prefix`, which ends in `/`: who owns them now, and
        /// each acquisition and release.
        pub fn watch_prefix(&self, prefix: impl AsRef<[u8]>) -> Watch {
            self.watch(prefix, EventMask::OWNERS)
        }

        /// Who owns each name.
        pub $($async)? fn query(
            &self,
            names: &[impl AsRef<[u8]>],
        ) -> Result<Each<Option<Owner>>, SessionError> {
            let ops = names.iter().map(|name| Op::Query(name.as_ref()));
            $answer!(each(&self.handle, "QUERY", Repeat::Safe, ops, query_result)?)
        }

        /// Who owns the name, from the cache if it is there: a watch keeps it right. Of several
        /// holders the one that has it longest. What it says is as old as a notice is on its way;
        /// who must know better asks with `query`, or sends fenced.
        pub $($async)? fn owner(
            &self,
            name: impl AsRef<[u8]>,
        ) -> Result<Option<Holder>, SessionError> {
            let name = name.as_ref();
            match ask_owner(&self.handle, name) {
                OwnerAsk::Known(owner) => return Ok(owner),
                OwnerAsk::Asked(queue) => {
                    if let Some(owner) = $owner!(queue) {
                        return Ok(owner);
                    }
                }
                OwnerAsk::Uncached => {}
            }
            let query = one(&self.handle, "QUERY", Repeat::Safe, Op::Query(name), query_result)?;
            let owner = $answer!(query)?;
            Ok(owner.map(|Owner { session, token, .. }| Holder { session, token }))
        }

        /// Claims each name exclusively. One that is another's is told with its holder.
        pub $($async)? fn register(
            &self,
            names: &[impl AsRef<[u8]>],
        ) -> Result<Each<Registered>, SessionError> {
            let ops = names.iter().map(|name| {
                let (name, mode) = (name.as_ref(), Mode::Exclusive);
                Op::Register { name, mode, replicated: false }
            });
            $answer!(each(&self.handle, "REGISTER", Repeat::Safe, ops, register_result)?)
        }

        /// Claims each name in the mode given.
        pub $($async)? fn register_as(
            &self,
            names: &[impl AsRef<[u8]>],
            mode: Mode,
        ) -> Result<Each<Registered>, SessionError> {
            let ops = names.iter().map(|name| {
                Op::Register { name: name.as_ref(), mode, replicated: false }
            });
            $answer!(each(&self.handle, "REGISTER", Repeat::Safe, ops, register_result)?)
        }

        /// Gives each name back, whatever its token.
        pub $($async)? fn release(
            &self,
            names: &[impl AsRef<[u8]>],
        ) -> Result<Each<()>, SessionError> {
            let ops = names.iter().map(|name| Op::Release { name: name.as_ref(), token: None });
            $answer!(each(&self.handle, "RELEASE", Repeat::Never, ops, plain_result)?)
        }

        /// Gives each name back if it is held under the token beside it. Where a server cannot say
        /// after a lost connection what it has answered, this is asked again, and then a name that
        /// is not held under its token any more counts as given back.
        pub $($async)? fn release_if(
            &self,
            names: &[(impl AsRef<[u8]>, Token)],
        ) -> Result<Each<()>, SessionError> {
            let ops = names.iter().map(|(name, token)| {
                Op::Release { name: name.as_ref(), token: Some(*token) }
            });
            $answer!(each_repeated(&self.handle, "RELEASE", ops, released_result)?)
        }

        /// Waits for the name, at most as long as given, and holds it exclusively until what is
        /// returned is dropped. Callers of one session exclude each other as others do.
        pub $($async)? fn lock(
            &self,
            name: impl AsRef<[u8]>,
            within: Option<Duration>,
        ) -> Result<Held, SessionError> {
            let mode = Mode::Exclusive;
            $lock!(PendingWait::new(&self.handle, name.as_ref(), mode, within, true))
        }

        /// As `lock`, in the mode given. One session has at most one permit of a name, whatever
        /// the mode.
        pub $($async)? fn lock_as(
            &self,
            name: impl AsRef<[u8]>,
            mode: Mode,
            within: Option<Duration>,
        ) -> Result<Held, SessionError> {
            $lock!(PendingWait::new(&self.handle, name.as_ref(), mode, within, true))
        }

        /// Waits for the name, at most as long as given. It is the session's until it is released
        /// or the session ends, as if it had been registered.
        pub $($async)? fn wait(
            &self,
            name: impl AsRef<[u8]>,
            mode: Mode,
            within: Option<Duration>,
        ) -> Result<Owner, SessionError> {
            $grant!(PendingWait::new(&self.handle, name.as_ref(), mode, within, false))
        }

        /// Who holds the name and who waits for it, up to `most` (1 to 1024) of each.
        pub $($async)? fn waiters(
            &self,
            name: impl AsRef<[u8]>,
            most: u16,
        ) -> Result<Option<Queue>, SessionError> {
            let op = Op::Waiters { name: name.as_ref(), most };
            $answer!(one(&self.handle, "WAITERS", Repeat::Safe, op, waiters_result)?)
        }

        /// Who owns each name, and its metadata.
        pub $($async)? fn meta(
            &self,
            names: &[impl AsRef<[u8]>],
        ) -> Result<Each<Option<Described>>, SessionError> {
            let ops = names.iter().map(|name| Op::Meta(name.as_ref()));
            $answer!(each(&self.handle, "META", Repeat::Safe, ops, meta_result)?)
        }

        /// Sets the metadata of a name of the session; with a version only if it has that one.
        pub $($async)? fn set_meta(
            &self,
            name: impl AsRef<[u8]>,
            version: Option<u32>,
            metadata: impl AsRef<[u8]>,
        ) -> Result<MetaSet, SessionError> {
            let (name, metadata) = (name.as_ref(), metadata.as_ref());
            let op = Op::SetMeta { name, version, metadata };
            $answer!(one(&self.handle, "SET_META", Repeat::Never, op, set_meta_result)?)
        }

        /// Hands each name over to another session, in one step each and under a new token.
        pub $($async)? fn transfer(
            &self,
            names: &[impl AsRef<[u8]>],
            to: SessionId,
        ) -> Result<Each<Owner>, SessionError> {
            let ops = names.iter().map(|name| {
                Op::Transfer { name: name.as_ref(), to, token: None }
            });
            $answer!(each(&self.handle, "TRANSFER", Repeat::Never, ops, granted_result)?)
        }

        /// Sends a message to the owner of the name. Without a receipt `Done` says that it is on
        /// its way; at most once.
        pub $($async)? fn send(
            &self,
            name: impl AsRef<[u8]>,
            payload: impl AsRef<[u8]>,
        ) -> Result<Delivery, SessionError> {
            let (target, payload) = (Target::Name(name.as_ref()), payload.as_ref());
            let letter = Letter { target, fence: None, receipt: false, payload };
            let op = Op::Send { letter, same: false };
            $answer!(one(&self.handle, "SEND", Repeat::Never, op, send_result)?)
        }

        /// Sends each letter: with receipts, fenced, or to a session, as it says.
        pub $($async)? fn send_letters(
            &self,
            letters: &[Letter<'_>],
        ) -> Result<Each<Delivery>, SessionError> {
            let ops = letters.iter().map(|letter| Op::Send { letter: *letter, same: false });
            $answer!(each(&self.handle, "SEND", Repeat::Never, ops, send_result)?)
        }

        /// Sends a message to every session; how many it reached.
        pub $($async)? fn broadcast(
            &self,
            payload: impl AsRef<[u8]>,
        ) -> Result<Reached, SessionError> {
            let op = Op::Broadcast { receipt: true, payload: payload.as_ref() };
            let reached = one(&self.handle, "BROADCAST", Repeat::Never, op, broadcast_result)?;
            Ok($answer!(reached)?.unwrap_or_default())
        }

        /// Answers a message that is a [request](Message::request).
        pub $($async)? fn reply(
            &self,
            message: &Message,
            says: impl AsRef<[u8]>,
        ) -> Result<Delivery, SessionError> {
            $answer!(reply(&self.handle, message, says.as_ref())?)
        }

        /// All names that begin with `prefix`, by slot and within a slot by name.
        pub $($async)? fn list(
            &self,
            prefix: impl AsRef<[u8]>,
        ) -> Result<Vec<ListedName>, SessionError> {
            let (mut slot, mut after, mut names) = (Slot::from_bits(0), Vec::new(), Vec::new());
            loop {
                let prefix = prefix.as_ref();
                let op = Op::List(ListQuery { slot, most: 1024, after: &after, prefix });
                let page = $answer!(one(&self.handle, "LIST", Repeat::Safe, op, list_result)?)?;
                names.extend(page.names);
                let Some(next) = page.next else { return Ok(names) };
                (slot, after) = (next.slot, next.after);
            }
        }

        /// What is known of another session: its address and metadata.
        pub $($async)? fn session(
            &self,
            session: SessionId,
        ) -> Result<SessionRecord, SessionError> {
            let op = Op::Session(session);
            $answer!(one(&self.handle, "SESSION", Repeat::Safe, op, session_result)?)
        }
    };
}

pub(super) use methods;

/// What the methods and both drivers are made of.
pub(super) mod prelude {
    pub(crate) use std::sync::Arc;
    pub(crate) use std::time::Duration;

    pub(crate) use ringway_core::{SessionId, Slot, Token};

    pub(crate) use super::super::ask::{
        Each, OwnerAsk, PendingReply, PendingWait, ask_owner, each, each_repeated, one,
        released_result, reply,
    };
    pub(crate) use super::super::hub::{Act, Command, Hub};
    pub(crate) use super::super::receive::{Events, Messages, Watch};
    pub(crate) use super::super::{Handle, Held, Plan, SessionError, link_fault, now};
    pub(crate) use crate::engine::{
        Attempt, Engine, Fault, Input, LinkFault, Over, Repeat, WatchRequest,
    };
    pub(crate) use crate::notice::Message;
    pub(crate) use crate::op::{Events as EventMask, Letter, ListQuery, Mode, Op, Target};
    pub(crate) use crate::reply::{
        Delivery, Described, Holder, ListedName, MetaSet, Owner, Queue, Reached, Registered,
        SessionRecord, broadcast_result, granted_result, list_result, meta_result, plain_result,
        query_result, register_result, send_result, session_result, set_meta_result,
        waiters_result,
    };
}

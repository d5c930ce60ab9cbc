//! What names tell those who watch them.
//!
//! Whatever happens to a name is told where it happens, by one of these. While nobody watches
//! anything here each costs a branch. In one step only the last of what happens to a name counts:
//! who hands a name over tells that the next one has it, not that it was free in between.
//!
//! Cost: a look at the record for its name, and what `feed` says. Tests: `tests/watches.rs`.

use ringway_core::{Region, SessionId, Token};
use ringway_table::{Name, RecordId};

use crate::handle::Handle;
use crate::names::Names;
use crate::watch::event::{Change, Kind};

impl<R: Region> Names<R> {
    /// A session has a name since this moment.
    #[cold]
    pub(crate) fn tell_acquired(&mut self, id: RecordId, to: Handle, token: Token) {
        if let Some(session) = self.session_of(to.owner()) {
            let (name, len) = self.name_of(id);
            let (kind, name) = (Kind::Acquired, &name[..len]);
            self.feeds.changed(&Change { kind, session, token, extra: 0, shared: false, name });
        }
    }

    /// A name is nobody's since this moment, and was a session's.
    #[cold]
    pub(crate) fn tell_released(&mut self, id: RecordId, (session, token): (SessionId, Token)) {
        let (name, len) = self.name_of(id);
        self.feeds.released(&name[..len], (session, token));
    }

    /// A name with a side that one session held alone is nobody's: it goes to whoever waits, or
    /// is told to be free.
    pub(crate) fn freed_by(&mut self, id: RecordId, (session, token): (SessionId, Token)) {
        if self.feeds.is_empty() {
            return self.freed(id);
        }
        let ((bytes, len), hash) = (self.name_of(id), self.table.hash_of(id));
        self.freed(id);
        let bytes = &bytes[..len];
        let name = Name::new(bytes).expect("it was in the table");
        let found = self.table.find(hash, &name);
        if found.is_none_or(|(id, grant)| self.shown(id, &grant).is_none()) {
            self.feeds.released(bytes, (session, token));
        }
    }

    /// One of several who hold a name has left it.
    #[cold]
    pub(crate) fn tell_left(&mut self, side: u32, from: Handle, token: Token) {
        let id = RecordId::from_number(self.claims.record_of(side));
        let session = SessionId(self.session_at(from));
        let shared = self.claims.side(side).holders() > 0;
        let (name, len) = self.name_of(id);
        let (kind, name) = (Kind::Released, &name[..len]);
        self.feeds.changed(&Change { kind, session, token, extra: 0, shared, name });
    }

    /// Another number of sessions waits for a name.
    #[cold]
    pub(crate) fn tell_waiting(&mut self, side: u32) {
        let id = RecordId::from_number(self.claims.record_of(side));
        let shown = self.shown(id, &self.table.grant(id));
        let (session, token) = shown.unwrap_or((SessionId(0), Token(0)));
        let extra = self.claims.side(side).waiters();
        let (name, len) = self.name_of(id);
        let (kind, name) = (Kind::Waiting, &name[..len]);
        self.feeds.changed(&Change { kind, session, token, extra, shared: false, name });
    }

    /// What is said about a name is something else.
    #[cold]
    pub(crate) fn tell_changed(&mut self, id: RecordId, version: u32) {
        if let Some((session, token)) = self.shown(id, &self.table.grant(id)) {
            let (name, len) = self.name_of(id);
            let (kind, name) = (Kind::Changed, &name[..len]);
            let extra = version;
            self.feeds.changed(&Change { kind, session, token, extra, shared: false, name });
        }
    }
}

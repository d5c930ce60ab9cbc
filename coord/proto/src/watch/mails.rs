//! What the two machines of watches tell each other, as mail between shards.

use alloc::vec::Vec;

use ringway_core::wire::{Put, Reader, Truncated};
use ringway_core::{ConnId, Epoch};

use crate::mail;
use crate::watch::Ref;
use crate::watch::feed::From;

/// What a watcher asks a feed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum What {
    /// Everything behind a number.
    Resume = 0,
    /// A page of the names that a prefix covers.
    Page = 1,
    /// Who has a name.
    Name = 2,
}

/// Which watcher asks a feed for something, and what for; the answer repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What for.
    pub what: What,
    /// Its topic.
    pub topic: Ref,
    /// Its connection.
    pub conn: ConnId,
    /// Its number there.
    pub watch: u32,
    /// Which of its questions this is.
    pub nonce: u32,
}

fn put_ref(out: &mut Vec<u8>, at: Ref) {
    out.put_u32(at.index);
    out.put_u32(at.generation);
}

/// Reads where something stands.
pub fn read_ref(reader: &mut Reader<'_>) -> Result<Ref, Truncated> {
    Ok(Ref { index: reader.u32()?, generation: reader.u32()? })
}

/// A shard has watchers of a filter, in this topic.
pub fn put_open(out: &mut Vec<u8>, topic: Ref, filter: &[u8]) {
    out.put_u8(mail::FEED_OPEN);
    put_ref(out, topic);
    out.extend_from_slice(filter);
}

/// The answer: the feed, and the number behind which it tells everything; nothing if it is full.
pub fn put_opened(out: &mut Vec<u8>, topic: Ref, opened: Option<(Ref, u64)>) {
    out.put_u8(mail::FEED_OPENED);
    put_ref(out, topic);
    if let Some((feed, sequence)) = opened {
        put_ref(out, feed);
        out.put_u64(sequence);
    }
}

/// Reads the answer behind the topic.
pub fn opened(reader: &mut Reader<'_>) -> Result<Option<(Ref, u64)>, Truncated> {
    if reader.is_empty() {
        return Ok(None);
    }
    Ok(Some((read_ref(reader)?, reader.u64()?)))
}

/// A shard has no watchers of a filter any more.
pub fn put_close(out: &mut Vec<u8>, topic: Ref, feed: Ref) {
    out.put_u8(mail::FEED_CLOSE);
    put_ref(out, topic);
    put_ref(out, feed);
}

/// Starts changes for a topic; where their last number goes, eight bytes.
pub fn begin_events(out: &mut Vec<u8>, topic: Ref, gap: bool) -> usize {
    out.put_u8(mail::FEED_EVENTS);
    put_ref(out, topic);
    out.put_u8(u8::from(gap));
    out.put_u64(0);
    out.len() - 8
}

/// So many bytes of a feed's changes were taken.
pub fn put_taken(out: &mut Vec<u8>, feed: Ref, bytes: usize) {
    out.put_u8(mail::FEED_TAKEN);
    put_ref(out, feed);
    out.put_u32(bytes as u32);
}

/// A watcher asks a feed for something: [`put_from`] or [`put_page_from`] say what.
pub fn begin_ask<'a>(out: &'a mut Vec<u8>, asked: &Asked, feed: Ref) -> &'a mut Vec<u8> {
    out.put_u8(mail::FEED_ASK);
    put_asked(out, asked);
    put_ref(out, feed);
    out
}

/// From where on a watcher goes on.
pub fn put_from(out: &mut Vec<u8>, from: &From) {
    out.put_u32(from.epoch.0);
    out.put_u64(from.sequence);
    out.put_u32(from.most as u32);
}

/// Reads that.
pub fn from(reader: &mut Reader<'_>) -> Result<From, Truncated> {
    let (epoch, sequence) = (Epoch(reader.u32()?), reader.u64()?);
    Ok(From { epoch, sequence, most: reader.u32()? as usize })
}

/// From where on a page of names begins.
pub fn put_page_from(out: &mut Vec<u8>, slot: u16, after: &[u8]) {
    out.put_u16(slot);
    out.put_short_bytes(after);
}

/// Starts the answer to a watcher.
pub fn begin_told<'a>(out: &'a mut Vec<u8>, asked: &Asked) -> &'a mut Vec<u8> {
    out.put_u8(mail::FEED_TOLD);
    put_asked(out, asked);
    out
}

fn put_asked(out: &mut Vec<u8>, asked: &Asked) {
    out.put_u8(asked.what as u8);
    put_ref(out, asked.topic);
    out.put_u32(asked.conn.index);
    out.put_u32(asked.conn.generation);
    out.put_u32(asked.watch);
    out.put_u32(asked.nonce);
}

/// Reads who asks, or asked.
pub fn asked(reader: &mut Reader<'_>) -> Result<Asked, Truncated> {
    let what = match reader.u8()? {
        0 => What::Resume,
        1 => What::Page,
        2 => What::Name,
        _ => return Err(Truncated),
    };
    let topic = read_ref(reader)?;
    let conn = ConnId { index: reader.u32()?, generation: reader.u32()? };
    Ok(Asked { what, topic, conn, watch: reader.u32()?, nonce: reader.u32()? })
}

//! `ringway port waiters`: who waits for a name, and who waits for whom.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::time::Duration;

use ringway_client::{Client, Mode, Queue, WaitEdge};
use serde_json::{Value, json};

use super::deadlock::{Needs, circles, lasting, stuck};
use crate::args::client::ServerArgs;
use crate::args::port::WaitersArgs;
use crate::connect::connect;
use crate::failure::Failure;
use crate::output::{answer, bytes_json, code, printable, table};

/// Pairs of one page, and holders and waiters of one name.
const PAGE: u16 = 1024;

pub(super) fn run(
    args: &WaitersArgs,
    server: &ServerArgs,
    json: bool,
) -> Result<ExitCode, Failure> {
    let mut client = connect(server)?;
    match &args.name {
        Some(name) => of_name(name.as_bytes(), args.limit, &mut client, json),
        None => of_all(args.limit, &mut client, json),
    }
}

fn of_name(name: &[u8], limit: u32, client: &mut Client, json: bool) -> Result<ExitCode, Failure> {
    let queue = client.waiters(name, limit.min(u32::from(PAGE)) as u16)?;
    let Some(queue) = queue else {
        answer(json, &json!({ "name": bytes_json(name), "result": "free" }), || {
            format!("{}  free", printable(name))
        });
        return Ok(code(true));
    };
    answer(json, &queue_json(name, &queue), || {
        let holders = queue.holders.iter().map(|holder| {
            let token = format!("token {}", holder.token);
            ["holds".into(), holder.session.to_string(), token, "-".into(), "-".into()]
        });
        let waiters = queue.waiters.iter().map(|waiter| {
            let ticket = format!("ticket {}", waiter.ticket.0);
            let (mode, waited) = (mode_text(waiter.mode), waiter.waited.as_millis().to_string());
            ["waits".into(), waiter.session.to_string(), ticket, mode, waited]
        });
        let rows: Vec<Vec<String>> = holders.chain(waiters).map(Vec::from).collect();
        let (mode, held, wait) =
            (mode_text(queue.mode), queue.holders_in_all, queue.waiters_in_all);
        format!("{}  {mode}  {held} hold it, {wait} wait\n", printable(name))
            + &table(&["what", "session", "under", "wants it", "waited ms"], &rows)
    });
    Ok(code(true))
}

fn mode_text(mode: Mode) -> String {
    match mode {
        Mode::Exclusive => "exclusive".to_owned(),
        Mode::Shared => "shared".to_owned(),
        Mode::Counting { permits } => format!("{permits} permits"),
    }
}

fn mode_json(mode: Mode) -> (&'static str, Option<u32>) {
    match mode {
        Mode::Exclusive => ("exclusive", None),
        Mode::Shared => ("shared", None),
        Mode::Counting { permits } => ("counting", Some(permits)),
    }
}

fn queue_json(name: &[u8], queue: &Queue) -> Value {
    let holders: Vec<Value> = queue
        .holders
        .iter()
        .map(|holder| {
            let (session, token) = (holder.session.to_string(), holder.token.to_string());
            json!({ "session": session, "token": token })
        })
        .collect();
    let waiters: Vec<Value> = queue
        .waiters
        .iter()
        .map(|waiter| {
            let (mode, permits) = mode_json(waiter.mode);
            json!({
                "session": waiter.session.to_string(),
                "ticket": waiter.ticket.0,
                "mode": mode,
                "permits": permits,
                "waited_ms": waiter.waited.as_millis() as u64,
            })
        })
        .collect();
    let (mode, permits) = mode_json(queue.mode);
    json!({
        "name": bytes_json(name),
        "result": "owned",
        "mode": mode,
        "permits": permits,
        "holders_in_all": queue.holders_in_all,
        "waiters_in_all": queue.waiters_in_all,
        "holders": holders,
        "waiters": waiters,
    })
}

fn of_all(limit: u32, client: &mut Client, json: bool) -> Result<ExitCode, Failure> {
    let first = edges(client)?;
    // In between: a name whose pairs last was held all the time, and so always in the same mode.
    let needs = needs(&first, client)?;
    let edges = lasting(&first, edges(client)?);
    let stuck = stuck(&edges, |name| needs.get(name).copied().unwrap_or(Needs::All));
    let circles = circles(&stuck);
    let (shown, more) = (&edges[..edges.len().min(limit as usize)], edges.len() > limit as usize);
    let waits: Vec<Value> = shown.iter().map(edge_json).collect();
    let deadlocks: Vec<Vec<Value>> =
        circles.iter().map(|way| way.iter().copied().map(edge_json).collect()).collect();
    let value = json!({ "waits": waits, "more": more, "deadlocks": deadlocks });
    answer(json, &value, || {
        let rows: Vec<_> = shown.iter().map(edge_row).collect();
        let head = ["waiting session", "name", "held by", "token", "waited ms"];
        let rest = if more { "... and more: --limit shows them\n" } else { "" };
        let circles = circles.iter().map(|way| circle_text(way));
        table(&head, &rows) + rest + &circles.collect::<String>()
    });
    Ok(code(circles.is_empty()))
}

fn edges(client: &mut Client) -> Result<Vec<WaitEdge>, Failure> {
    let (mut edges, mut cursor) = (Vec::new(), Some(0));
    while let Some(at) = cursor {
        let page = client.waits(at, PAGE)?;
        edges.extend(page.edges);
        cursor = page.next;
    }
    Ok(edges)
}

/// Of the names that may be part of a deadlock, those of which one holder is enough.
fn needs(edges: &[WaitEdge], client: &mut Client) -> Result<BTreeMap<Vec<u8>, Needs>, Failure> {
    let mut needs = BTreeMap::new();
    for edge in stuck(edges, |_| Needs::All) {
        if !needs.contains_key(&edge.name) {
            let need = match client.waiters(&edge.name, 1)? {
                Some(Queue { mode: Mode::Counting { .. }, holders_in_all, .. }) => {
                    Needs::Any(holders_in_all as usize)
                }
                _ => Needs::All,
            };
            needs.insert(edge.name.clone(), need);
        }
    }
    Ok(needs)
}

fn edge_row(edge: &WaitEdge) -> Vec<String> {
    vec![
        edge.waiting.to_string(),
        printable(&edge.name),
        edge.holder.session.to_string(),
        edge.holder.token.to_string(),
        edge.since.as_millis().to_string(),
    ]
}

fn edge_json(edge: &WaitEdge) -> Value {
    json!({
        "waiting": edge.waiting.to_string(),
        "ticket": edge.ticket.0,
        "waited_ms": edge.since.as_millis() as u64,
        "holder": edge.holder.session.to_string(),
        "token": edge.holder.token.to_string(),
        "name": bytes_json(&edge.name),
    })
}

fn circle_text(way: &[&WaitEdge]) -> String {
    let mut text = format!("DEADLOCK of {} sessions:\n", way.len());
    for edge in way {
        text += &format!(
            "  {} waits {} for {}, held by {} (token {})\n",
            edge.waiting,
            seconds(edge.since),
            printable(&edge.name),
            edge.holder.session,
            edge.holder.token,
        );
    }
    let (waiting, name) = (way[0].waiting, printable(&way[0].name));
    text + &format!(
        "  end it: ringway session kill {waiting}, or ringway port revoke {name}, or another\n"
    )
}

fn seconds(waited: Duration) -> String {
    format!("{:.1} s", waited.as_secs_f64())
}

//! Service discovery: instances say where they are, clients know at every moment who is there.
//!
//! ```text
//! cargo run -p ringway-client --example discovery -- 127.0.0.1:7400 find mail
//! cargo run -p ringway-client --example discovery -- 127.0.0.1:7400 serve mail 1 10.0.0.7:25
//! ```
//!
//! An instance owns a name below `services/`, and says in the name's metadata where it is. The name
//! goes with its session: an instance that dies needs nobody to clean up behind it. A client
//! watches the prefix: it is told the state first and then each change, without a hole between
//! them, and after a lost connection what has changed meanwhile.

use std::collections::BTreeMap;
use std::env::args;
use std::error::Error;
use std::io::Read;
use std::time::Duration;

use ringway_client::engine::WatchItem;
use ringway_client::op::Events;
use ringway_client::{ChangeKind, Session};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [address, "serve", service, node, place] => serve(address, service, node.parse()?, place),
        [address, "find", service] => find(address, service),
        _ => Err("usage: discovery ADDRESS serve SERVICE NODE PLACE | ADDRESS find SERVICE".into()),
    }
}

/// One instance of a service: it is found until it ends.
fn serve(address: &str, service: &str, node: u64, place: &str) -> Result<(), Box<dyn Error>> {
    let builder = Session::builder().node(node).lease(Duration::from_secs(1));
    let session = builder.connect(address)?;
    let name = format!("services/{service}/{node}");
    session.register(&[&name])?[0].map_err(|refusal| format!("{name}: {refusal}"))?;
    session.set_meta(&name, None, place)?;
    println!("{name} is at {place}");
    // Here an instance serves. This one does until its input ends.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    session.close();
    Ok(())
}

/// A client: it prints where the instances are, whenever that changes.
fn find(address: &str, service: &str) -> Result<(), Box<dyn Error>> {
    // A node number is for those who own something; a client only needs one that is its own.
    let node = 1 << 32 | u64::from(std::process::id());
    let session = Session::builder().node(node).connect(address)?;
    let mut watch =
        session.watch(format!("services/{service}/"), Events::OWNERS.and(Events::CHANGED));
    let mut places: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    loop {
        match watch.recv_news()? {
            // The state at one moment, at first and whenever changes may have been missed.
            WatchItem::Snapshot(owned) => {
                places.clear();
                for owned in owned {
                    place_of(&session, owned.name, &mut places)?;
                }
            }
            WatchItem::Change(change) => match change.kind {
                ChangeKind::Released => drop(places.remove(&change.owned.name)),
                _ => place_of(&session, change.owned.name, &mut places)?,
            },
            _ => continue,
        }
        println!("{service}: {}", Vec::from_iter(places.values().map(String::as_str)).join(" "));
    }
}

/// Learns where an instance is. One that has not said so yet is not there yet: its metadata is a
/// change of its own.
fn place_of(
    session: &Session,
    name: Vec<u8>,
    places: &mut BTreeMap<Vec<u8>, String>,
) -> Result<(), Box<dyn Error>> {
    let described = session.meta(&[&name])?.remove(0)?;
    if let Some(described) = described.filter(|described| described.version > 0) {
        places.insert(name, String::from_utf8(described.metadata)?);
    }
    Ok(())
}

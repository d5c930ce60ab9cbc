//! RESP as real clients send it, and the promise that the cutting of a stream does not matter.

use proptest::prelude::*;
use ringway_coord_proto::resp::check::{fuzz_commands, parse_pieces, parse_whole, splits_agree};
use ringway_coord_proto::resp::{
    Args, Parsed, Request, Version, Writer, command, next_command, understand,
};

/// One command in the form of an array.
fn array(args: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn any_args() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let arg = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..24),
        1 => prop::collection::vec(any::<u8>(), 90..1100),
    ];
    prop::collection::vec(arg, 1..40)
}

/// Bytes that look like RESP more often than noise does.
fn any_fragment() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any_args().prop_map(|args| array(&args)),
        "[ -~]{0,20}\r?\n".prop_map(String::into_bytes),
        "[*$][0-9-]{0,12}\r?\n?".prop_map(String::into_bytes),
        Just(b"*0\r\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..12),
    ]
}

proptest! {
    /// What was framed is found again, to the byte, however it is cut.
    #[test]
    fn commands_survive_any_cut(
        commands in prop::collection::vec(any_args(), 1..6),
        cut in 1usize..200,
    ) {
        let stream: Vec<u8> = commands.iter().flat_map(|args| array(args)).collect();
        let whole = parse_whole(&stream);
        prop_assert_eq!(&whole.commands, &commands);
        prop_assert_eq!(whole.error, None);
        prop_assert_eq!(parse_pieces(stream.chunks(cut)).commands, commands);
    }

    /// Right or wrong, a stream means the same in every cut.
    #[test]
    fn meaning_does_not_depend_on_the_cut(
        fragments in prop::collection::vec(any_fragment(), 0..8),
        seed: u64,
    ) {
        splits_agree(&fragments.concat(), seed);
    }

    /// Noise does no harm.
    #[test]
    fn noise_does_no_harm(data in prop::collection::vec(any::<u8>(), 0..400)) {
        fuzz_commands(&data);
    }
}

/// The inputs that fuzzing starts from; `cargo test` replays them.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/fuzz/corpus/resp");
    let mut inputs: Vec<_> = std::fs::read_dir(folder)
        .expect("the corpus is part of the repository")
        .map(|entry| {
            let path = entry.expect("readable").path();
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("readable"))
        })
        .collect();
    inputs.sort();
    inputs
}

/// What a stream is understood as: the requests, or the words and the text of refusals.
fn understood(data: &[u8]) -> Vec<Result<String, String>> {
    let (mut args, mut at, mut stories) = (Args::new(), 0, Vec::new());
    while let Ok(Parsed::Command { consumed }) = next_command(&data[at..], &mut args) {
        let words = args.bind(&data[at..]);
        if !words.is_empty() {
            stories.push(match understand(words) {
                Ok(request) => Ok(format!("{request:?}")),
                Err(refusal) => Err(format!("{} {refusal}", refusal.code().word())),
            });
        }
        at += consumed;
    }
    stories
}

/// Every input of the corpus keeps the parser's promises; the first word of its name tells how it
/// ends, where it has one of these words.
#[test]
fn corpus_is_replayed() {
    let inputs = corpus();
    assert!(inputs.len() >= 30, "the corpus is there");
    for (name, data) in inputs {
        fuzz_commands(&data);
        let stream = parse_whole(&data);
        let stories = understood(&data);
        match name.split('-').next() {
            Some("broken") => assert!(stream.error.is_some(), "{name}"),
            Some("refused") => assert!(stories.iter().all(Result::is_err), "{name}: {stories:?}"),
            Some("own" | "eval" | "redis") => {
                let refused = stories.iter().filter(|story| story.is_err()).count();
                // One optional command of redis-py 8, see the next test.
                assert!(refused <= usize::from(name.starts_with("redis-py-8")), "{name}");
                assert_eq!(stream.error, None, "{name}");
                assert!(!stories.is_empty(), "{name}");
            }
            _ => {}
        }
    }
}

/// redis-py 3, 5 and 8, in both versions, take, extend, renew and release a lock as they always
/// do; nothing but the optional notices of version 8 is refused, which that client expects.
#[test]
fn redis_py_locks_are_understood() {
    let name = "[106, 111, 98, 115, 47, 110, 105, 103, 104, 116, 108, 121]";
    for (file, data) in corpus().into_iter().filter(|(name, _)| name.starts_with("redis-py")) {
        let stories = understood(&data);
        let refused: Vec<_> = stories.iter().filter_map(|story| story.as_ref().err()).collect();
        match refused.as_slice() {
            [] => {}
            [notices] => assert!(notices.contains("'MAINT_NOTIFICATIONS'"), "{file}: {notices}"),
            more => panic!("{file}: {more:?}"),
        }
        let lock: Vec<_> = stories.iter().flatten().filter(|story| story.contains(name)).collect();
        assert!(lock[0].starts_with("Lock {") && lock[0].ends_with("lease: Span(10000000000) }"));
        let acts =
            ["act: Extend(Span(5000000000))", "act: Expire(Span(10000000000))", "act: Delete"];
        assert_eq!(lock.len(), 1 + acts.len(), "{file}");
        for (story, act) in lock[1..].iter().zip(acts) {
            assert!(story.starts_with("Script(") && story.contains(act), "{file}: {story}");
        }
    }
}

proptest! {
    /// No command, however odd its arguments, is a panic or an error of more than one line.
    #[test]
    fn understanding_is_total(
        verb in prop::sample::select(VERBS.to_vec()),
        words in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                prop::sample::select(WORDS.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
            ],
            0..8,
        ),
    ) {
        let mut command: Vec<Vec<u8>> =
            verb.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        command.extend(words);
        let input = array(&command);
        let mut args = Args::new();
        prop_assert!(next_command(&input, &mut args).is_ok());
        for version in [Version::Resp2, Version::Resp3] {
            let mut out = Vec::new();
            let mut writer = Writer::new(&mut out, version);
            match understand(args.bind(&input)) {
                Ok(Request::Describe(describe)) => command::reply(describe, &mut writer),
                Ok(_) => writer.ok(),
                Err(refusal) => {
                    writer.error(refusal.code(), refusal);
                    prop_assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
                    prop_assert!(out.len() < 700, "{}", out.escape_ascii());
                }
            }
            prop_assert!(out.ends_with(b"\r\n"));
        }
    }
}

const VERBS: [&str; 24] = [
    "PORT.QUERY",
    "PORT.REGISTER",
    "PORT.RELEASE",
    "PORT.LIST",
    "SESSION.OPEN",
    "SESSION.RENEW",
    "SESSION.CLOSE",
    "SESSION.LIST",
    "SET",
    "EVAL",
    "EVALSHA",
    "SCRIPT",
    "HELLO",
    "AUTH",
    "CLIENT",
    "CLIENT SETINFO",
    "COMMAND",
    "COMMAND INFO",
    "COMMAND GETKEYS",
    "COMMAND LIST FILTERBY",
    "COMMAND DOCS",
    "CONFIG",
    "CLUSTER",
    "SELECT",
];

const WORDS: [&str; 26] = [
    "NAMES",
    "MODE",
    "COUNTING",
    "SHARED",
    "REPLICATED",
    "TOKEN",
    "CURSOR",
    "COUNT",
    "PREFIX",
    "LEASE",
    "SECRET",
    "BARE",
    "NX",
    "PX",
    "1",
    "2",
    "10000",
    "7:a",
    "0123456789abcdef",
    "LOAD",
    "SETNAME",
    "000102030405060708090a0b0c0d0e0f",
    "a4e8783852e6b949f9ef3a97212805108459a890",
    "PORT.REGISTER",
    "client|id",
    "PATTERN",
];

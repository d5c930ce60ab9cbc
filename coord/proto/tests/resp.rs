//! RESP as real clients send it, and the promise that the cutting of a stream does not matter.

use proptest::prelude::*;
use ringway_coord_proto::resp::check::{fuzz_commands, parse_pieces, parse_whole, splits_agree};

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

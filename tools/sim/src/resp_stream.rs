//! The bytes of a server to a RESP2 client: values, cut anywhere.
//!
//! As in `stream.rs`, what is wrong with a stream is an error and not a panic.

/// One value of RESP2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `+text`.
    Text(String),
    /// `-CODE text`.
    Error(String),
    /// `:number`.
    Number(i64),
    /// `$n` and bytes.
    Bulk(Vec<u8>),
    /// `$-1` or `*-1`.
    Null,
    /// `*n` and values.
    Array(Vec<Value>),
}

/// Takes the first value off the front of `bytes`. `None`: it is not whole yet.
pub fn next_value(bytes: &[u8]) -> Result<Option<(Value, usize)>, String> {
    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let line = std::str::from_utf8(&bytes[..end]).map_err(|error| error.to_string())?;
    let mut used = end + 2;
    let (Some(kind), Some(rest)) = (line.get(..1), line.get(1..)) else {
        return Err("a line without anything".to_owned());
    };
    let number = || rest.parse::<i64>().map_err(|_| format!("no number: {line}"));
    let value = match kind {
        "+" => Value::Text(rest.to_owned()),
        "-" => Value::Error(rest.to_owned()),
        ":" => Value::Number(number()?),
        "$" | "*" if rest == "-1" => Value::Null,
        "$" => {
            let len = usize::try_from(number()?).map_err(|error| error.to_string())?;
            let Some(rest) = bytes[used..].get(..len + 2) else { return Ok(None) };
            let body = rest.strip_suffix(b"\r\n").ok_or("a bulk string without its end")?;
            used += len + 2;
            Value::Bulk(body.to_vec())
        }
        "*" => {
            let mut values = Vec::new();
            for _ in 0..number()? {
                let Some((value, more)) = next_value(&bytes[used..])? else { return Ok(None) };
                values.push(value);
                used += more;
            }
            Value::Array(values)
        }
        _ => return Err(format!("no value of RESP2: {line}")),
    };
    Ok(Some((value, used)))
}

/// A command as an array of bulk strings.
pub fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value is found whole and never half, wherever the bytes are cut.
    #[test]
    fn values_are_read_whole() {
        let bytes = b"+OK\r\n:-7\r\n$3\r\na\r\n\r\n*2\r\n$-1\r\n-ERR x\r\n";
        let cuts = [5, 10, 19];
        for end in 0..cuts[0] {
            assert_eq!(next_value(&bytes[..end]), Ok(None));
        }
        let (mut at, mut values) = (0, Vec::new());
        while let Some((value, used)) = next_value(&bytes[at..]).expect("proper") {
            for end in at..at + used {
                assert_eq!(next_value(&bytes[at..end]), Ok(None), "{end}");
            }
            values.push(value);
            at += used;
        }
        let array = Value::Array(vec![Value::Null, Value::Error("ERR x".to_owned())]);
        let (text, bulk) = (Value::Text("OK".to_owned()), Value::Bulk(b"a\r\n".to_vec()));
        assert_eq!(values, [text, Value::Number(-7), bulk, array]);
        assert!(next_value(b"hello\r\n").is_err() && next_value(b"\r\n").is_err());
        assert_eq!(command(&[b"GET", b"a"]), b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
    }
}

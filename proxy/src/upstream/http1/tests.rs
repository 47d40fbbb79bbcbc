use proptest::prelude::*;

use super::*;

/// The text of a body that comes in these pieces, whether it ended, and what came behind it.
fn read(body: &mut Body, pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>), Broken> {
    let (mut text, mut behind) = (Vec::new(), Vec::new());
    for piece in pieces {
        let read = body.read(piece, |bytes| text.extend_from_slice(bytes))?;
        behind.extend_from_slice(&piece[read..]);
    }
    Ok((text, behind))
}

fn head(raw: &str) -> Result<Option<(Head, Body, usize)>, Broken> {
    parse(raw.replace('\n', "\r\n").as_bytes())
}

#[test]
fn a_head_says_how_its_body_ends_and_whether_another_answer_may_follow() {
    let check = |raw: &str, body, keeps_open| {
        let (head, found, _) = head(raw).unwrap().unwrap();
        assert_eq!((found, head.keeps_open), (body, keeps_open), "{raw}");
    };
    check("HTTP/1.1 200 OK\ncontent-length: 5\n\n", Body::of_length(5), true);
    check("HTTP/1.1 200 OK\ncontent-length: 5\nContent-Length: 5\n\n", Body::of_length(5), true);
    check("HTTP/1.1 200 OK\nTransfer-Encoding: Chunked\n\n", Body::chunked(), true);
    check(
        "HTTP/1.1 200 OK\ntransfer-encoding: chunked\nconnection: x, Close\n\n",
        Body::chunked(),
        false,
    );
    check("HTTP/1.1 200 OK\n\n", Body::until_close(), false);
    check("HTTP/1.0 200 OK\ncontent-length: 5\n\n", Body::of_length(5), false);
    check("HTTP/1.1 204 No Content\n\n", Body::of_length(0), true);
    check(
        "HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\ncontent-length: 0\n\n",
        Body::of_length(0),
        true,
    );
}

#[test]
fn a_head_that_can_be_read_in_two_ways_is_none() {
    for raw in [
        "HTTP/1.1 200 OK\ncontent-length: 5\ncontent-length: 6\n\n",
        "HTTP/1.1 200 OK\ncontent-length: 5, 5\n\n",
        "HTTP/1.1 200 OK\ncontent-length: +5\n\n",
        "HTTP/1.1 200 OK\ncontent-length: 99999999999999999999\n\n",
        "HTTP/1.1 200 OK\ncontent-length: 5\ntransfer-encoding: chunked\n\n",
        "HTTP/1.1 200 OK\ntransfer-encoding: gzip, chunked\n\n",
        "HTTP/1.1 200 OK\ntransfer-encoding: chunked\ntransfer-encoding: chunked\n\n",
        "HTTP/1.0 200 OK\ntransfer-encoding: chunked\n\n",
        "HTTP/1.1 101 Switching Protocols\n\n",
        "HTTP/1.1 20 OK\n\n",
        "<html>",
    ] {
        assert_eq!(head(raw).unwrap_err(), Broken, "{raw}");
    }
    assert!(head("HTTP/1.1 200 OK\ncontent-le").unwrap().is_none(), "more may come");
}

#[test]
fn of_the_headers_those_are_kept_that_somebody_reads() {
    let raw = "HTTP/1.1 503 Busy\nserver: x\nRetry-After: 3\ncontent-length: 0\n\n";
    let (head, _, length) = head(raw).unwrap().unwrap();
    assert_eq!((head.status.as_u16(), head.headers.len()), (503, 1));
    assert_eq!(head.headers["retry-after"], "3");
    assert_eq!(length, raw.replace('\n', "\r\n").len());
}

#[test]
fn chunks_are_read_and_what_is_none_is_refused() {
    let whole = b"4;x=y\r\nabcd\r\n1 \r\ne\r\n00\r\nx-trailer: 1\r\n\r\nbehind";
    let mut body = Body::chunked();
    assert_eq!(read(&mut body, &[whole]), Ok((b"abcde".to_vec(), b"behind".to_vec())));
    assert!(body.has_ended());
    for wrong in [
        &b"\r\n"[..],
        b"4\nabcd",
        b"-4\r\n",
        b"0x4\r\n",
        b"4\r\nabcde\r\n",
        b"4\r\nabcd\n",
        b"1234567890abcdef0\r\n",
        b"0\r\n\n",
        b"0\r\nx\n\r\n",
        b"4;a\nb\r\n",
    ] {
        assert_eq!(read(&mut Body::chunked(), &[wrong]), Err(Broken), "{wrong:?}");
    }
    let endless = [&b"1;"[..], &[b'x'; 20 << 10]].concat();
    assert_eq!(read(&mut Body::chunked(), &[&endless]), Err(Broken));
}

#[test]
fn a_connection_that_ends_ends_what_said_nothing_of_its_length() {
    let mut open = Body::until_close();
    assert_eq!(read(&mut open, &[b"abc"]), Ok((b"abc".to_vec(), Vec::new())));
    assert!(open.closed().is_ok() && open.has_ended());
    assert_eq!(Body::of_length(1).closed(), Err(Broken));
    assert_eq!(Body::chunked().closed(), Err(Broken));
}

proptest! {
    #[test]
    fn the_cuts_of_the_network_do_not_matter(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        cuts in prop::collection::vec(0usize..300, 0..8),
    ) {
        let mut whole: Vec<u8> = chunks
            .iter()
            .flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat())
            .collect();
        whole.extend_from_slice(b"0\r\n\r\nnext");
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (whole.len() + 1)).collect();
        cuts.extend([0, whole.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &whole[pair[0]..pair[1]]).collect();
        let mut body = Body::chunked();
        prop_assert_eq!(read(&mut body, &pieces), Ok((chunks.concat(), b"next".to_vec())));
        prop_assert!(body.has_ended());
    }

    /// Whatever comes, it is an answer or it is not.
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), real in any::<bool>()) {
        let raw = [if real { &b"HTTP/1.1 200 OK\r\n"[..] } else { b"" }, &bytes].concat();
        if let Ok(Some((_, mut body, length))) = parse(&raw) {
            let _ = read(&mut body, &[&raw[length..]]);
        }
        let _ = read(&mut Body::chunked(), &[&bytes]);
    }
}

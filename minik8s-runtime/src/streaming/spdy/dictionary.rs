//! The dictionary that both ends of SPDY/3 give zlib before the first header.

/// Each with its length before it, as a header's name or value has.
const COUNTED: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];

/// What follows, one run of letters.
const PLAIN: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
    403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
    Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
    chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,\
    text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// The dictionary's bytes.
pub(super) fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1423);
    for word in COUNTED {
        let length = u32::try_from(word.len()).expect("a short word");
        bytes.extend(length.to_be_bytes());
        bytes.extend(word.as_bytes());
    }
    bytes.extend(PLAIN.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    /// Every zlib stream of SPDY/3 starts by naming its dictionary by this checksum.
    const CHECKSUM: u32 = 0xe3c6_a7c2;

    #[test]
    fn it_is_the_one_that_all_use() {
        let bytes = super::dictionary();
        assert_eq!(bytes.len(), 1423);
        let mut zlib = flate2::Compress::new(flate2::Compression::default(), true);
        assert_eq!(zlib.set_dictionary(&bytes).unwrap(), CHECKSUM);
    }
}

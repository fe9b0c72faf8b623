//! Pictures and files of a message.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use harness_guest::{ApiError, File, Image};

use crate::block::{Block, Source};
use crate::failure::{invalid_request, unsupported};

/// The largest picture, in bytes. The CLI scales what is above the API's own limit of 5 MB down;
/// 20 MiB is OpenAI's limit.
const IMAGE_MAX: usize = 20 << 20;

/// The largest document, in bytes: the API takes requests of 32 MB, and base64 adds a third.
const DOCUMENT_MAX: usize = 22 << 20;

/// Reads an `image_url` part. `param` is its place in the request, and `urls` whether the API may
/// be asked to fetch a picture.
pub(crate) fn image(image: Image, param: &str, urls: bool) -> Result<Block, ApiError> {
    let param = format!("{param}.image_url.url");
    let url = image.url;
    if !url.starts_with("data:") {
        let source = remote(url, &param, urls)?;
        return Ok(Block::Image { source });
    }
    let data = data_url(&url, &param)?;
    let bytes = decode(&data, &param)?;
    bounded(bytes.len(), IMAGE_MAX, &param)?;
    let size = imagesize::blob_size(&bytes).ok();
    let is_whole = size.is_some_and(|size| size.width > 0 && size.height > 0);
    let Some(media_type) = image_type(&bytes).filter(|_| is_whole) else {
        let message = format!("`{param}` is no PNG, JPEG, GIF or WebP picture, or a damaged one");
        return Err(invalid_request(message, Some(param)));
    };
    let source = Source::Base64 { media_type, data };
    Ok(Block::Image { source })
}

/// Whether the CLI passes a picture of a function's result on as it is, and does not scale it.
pub(crate) fn is_small(data: &str) -> bool {
    /// Below what the API itself scales down, in pixels, and what is worth looking at, in bytes of base64.
    const SIDE_MAX: usize = 1500;
    const DATA_MAX: usize = 256 << 10;
    let bytes = (data.len() <= DATA_MAX)
        .then(|| STANDARD.decode(data).ok())
        .flatten();
    let size = bytes.and_then(|bytes| imagesize::blob_size(&bytes).ok());
    size.is_some_and(|size| size.width <= SIDE_MAX && size.height <= SIDE_MAX)
}

/// Reads a `file` part: a PDF or a text, as a data URL or as bare base64.
pub(crate) fn file(file: File, param: &str, urls: bool) -> Result<Block, ApiError> {
    if file.id.is_some() {
        return Err(unsupported(
            "files by id: send the file itself as `file_data`",
            format!("{param}.file.file_id"),
        ));
    }
    let param = format!("{param}.file.file_data");
    let Some(url) = file.data else {
        return Err(invalid_request(
            format!("`{param}` is missing"),
            Some(param),
        ));
    };
    let title = file.filename.filter(|name| !name.trim().is_empty());
    if url.starts_with("https:") || url.starts_with("http:") {
        let source = remote(url, &param, urls)?;
        return Ok(Block::Document { source, title });
    }
    let data = match url.starts_with("data:") {
        true => data_url(&url, &param)?,
        false => squeezed(&url),
    };
    let bytes = decode(&data, &param)?;
    bounded(bytes.len(), DOCUMENT_MAX, &param)?;
    let source = if bytes.starts_with(b"%PDF-") {
        Source::Base64 {
            media_type: "application/pdf",
            data,
        }
    } else {
        match String::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Source::Text {
                media_type: "text/plain",
                data: text,
            },
            _ => {
                let message = format!("`{param}` is neither a PDF nor a text in UTF-8");
                return Err(invalid_request(message, Some(param)));
            }
        }
    };
    Ok(Block::Document { source, title })
}

/// A picture or document that the API is to fetch. Anthropic's servers reach public addresses only. Any URL but
/// `https` with a public host name is refused here, so that the client learns the reason.
fn remote(url: String, param: &str, urls: bool) -> Result<Source, ApiError> {
    let param = Some(param.to_owned());
    if !urls {
        let message = "URLs are not fetched: send the data itself as a `data:` URL (an operator can allow them with `fetch_urls`)";
        return Err(invalid_request(message, param));
    }
    let odd = |c: char| "\\@\u{feff}".contains(c) || c.is_whitespace() || c.is_control();
    let rest = url
        .strip_prefix("https://")
        .filter(|rest| !rest.contains(odd));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    if host.is_some_and(is_public_name) {
        return Ok(Source::Url { url });
    }
    let message =
        "only `https` URLs with the name of a public host can be fetched, or `data:` URLs sent";
    Err(invalid_request(message, param))
}

/// Whether a host, perhaps with a port, is named as on the public internet: with a domain, and
/// not by an address.
fn is_public_name(host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, "443"));
    let name = name.to_ascii_lowercase();
    let is_port = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let local = [
        ".local",
        ".localhost",
        ".internal",
        ".lan",
        ".home.arpa",
        ".test",
    ];
    let letters = name
        .rsplit('.')
        .next()
        .is_some_and(|last| last.starts_with(|c: char| c.is_ascii_alphabetic()));
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    is_port
        && plain
        && letters
        && name.contains('.')
        && !local.iter().any(|end| name.ends_with(end))
}

/// The base64 part of a data URL. Its media type is not read: the first bytes of the data show what it is.
fn data_url(url: &str, param: &str) -> Result<String, ApiError> {
    let parsed = url
        .strip_prefix("data:")
        .and_then(|rest| rest.split_once(','))
        .filter(|(head, _)| head.ends_with(";base64"));
    let Some((_, data)) = parsed else {
        let message = format!("`{param}` must be `data:MEDIA_TYPE;base64,DATA`");
        return Err(invalid_request(message, Some(param.to_owned())));
    };
    Ok(squeezed(data))
}

fn squeezed(data: &str) -> String {
    if data.bytes().any(|b| b.is_ascii_whitespace()) {
        data.split_ascii_whitespace().collect()
    } else {
        data.to_owned()
    }
}

fn decode(data: &str, param: &str) -> Result<Vec<u8>, ApiError> {
    let decoded = STANDARD
        .decode(data)
        .or_else(|_| STANDARD_NO_PAD.decode(data));
    match decoded {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => {
            let message = format!("`{param}` is not valid base64");
            Err(invalid_request(message, Some(param.to_owned())))
        }
    }
}

fn bounded(size: usize, max: usize, param: &str) -> Result<(), ApiError> {
    if size <= max {
        return Ok(());
    }
    let message = format!("`{param}` has {size} bytes, and {max} are allowed: make it smaller");
    Err(invalid_request(message, Some(param.to_owned())))
}

/// What a picture is by its first bytes, whatever its sender calls it.
fn image_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => Some("image/webp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str, urls: bool) -> Result<Block, ApiError> {
        let image = Image {
            url: url.into(),
            detail: None,
            extra: None,
        };
        super::image(image, "p", urls)
    }

    #[test]
    fn a_picture_is_what_its_bytes_say() {
        const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
        let spaced = PNG.replace("AAAA", "AA\n A A");
        let Ok(Block::Image { source }) = read(&format!("data:image/jpeg;base64,{spaced}"), false)
        else {
            panic!("it was refused");
        };
        let (media_type, data) = ("image/png", PNG.into());
        assert_eq!(source, Source::Base64 { media_type, data });
    }

    #[test]
    fn what_is_no_picture_is_refused_by_its_place() {
        for bad in [
            "data:image/png;base64,aGVsbG8=",
            "data:image/png;base64,",
            "data:image/png;base64,iVBORw0KGgo=",
            "data:image/gif;base64,R0lGODdhAQ==",
            "data:image/jpeg;base64,/9j/",
            "data:image/png;base64,?",
            "data:image/png,abc",
            "data:",
            "https://example.com/a.png",
            "file:///etc/passwd",
            "",
        ] {
            let error = read(bad, false).unwrap_err();
            assert_eq!(error.param.as_deref(), Some("p.image_url.url"), "{bad}");
        }
    }

    #[test]
    fn urls_are_passed_on_only_if_allowed_and_public() {
        assert!(read("https://example.com/a.png", true).is_ok());
        for bad in [
            "http://example.com/a.png",
            "https://localhost/a",
            "https://127.0.0.1/a",
            "https://2130706433/",
            "https://0x7f.0x1/",
            "https://[::1]/",
            "https://example.com@10.0.0.1/",
            "https://127.0.0.1\\@example.com/",
            "https://127.0X1/",
            "https://exa mple.com/",
            "https://example.com./a",
            "https://example.com:abc/a",
            "https://a.1com/x",
            "https://router/",
            "https://nas.local/",
            "https://metadata.google.internal./",
            "ftp://example.com/",
        ] {
            assert!(read(bad, true).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_a_pdf_or_a_text() {
        let read = |data: &str| {
            let given = File {
                filename: Some("x".to_owned()),
                data: Some(data.to_owned()),
                id: None,
                extra: None,
            };
            file(given, "p", false)
        };
        assert!(matches!(
            read("data:application/pdf;base64,JVBERi0xLjQK").unwrap(),
            Block::Document {
                source: Source::Base64 { .. },
                ..
            }
        ));
        let Block::Document { source, title } = read("data:text/csv;base64,YSxi").unwrap() else {
            panic!("no document");
        };
        assert_eq!(title.as_deref(), Some("x"));
        assert_eq!(
            source,
            Source::Text {
                media_type: "text/plain",
                data: "a,b".into()
            }
        );
        assert!(read("data:application/zip;base64,UEsDBAD/").is_err());
        assert!(read("JVBERi0xLjQK").is_ok(), "bare base64");
    }
}

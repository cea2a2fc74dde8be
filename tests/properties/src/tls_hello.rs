//! The first bytes of a TLS connection, and certificates.

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use minik8s_reconcile::http::tls;
use minik8s_reconcile::pki::{self, Authority, Subject};
use rustls::pki_types::CertificateDer;
use rustls::{ServerConfig, ServerConnection};

/// The most that the server answers to a stranger's hello.
const ANSWER: usize = 16 * 1024;

/// Whatever a stranger says first, there is no connection, and little is said in return.
pub(crate) fn holds(data: &[u8]) {
    pki::holder(&CertificateDer::from(data.to_vec()));
    let mut connection = ServerConnection::new(config()).expect("a connection");
    let (mut rest, mut said) = (data, 0);
    while !rest.is_empty() && connection.wants_read() {
        if connection.read_tls(&mut rest).expect("reading from memory") == 0 {
            break;
        }
        let went_on = connection.process_new_packets();
        let mut out = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut out).expect("writing into memory");
        }
        said += out.len();
        assert!(said <= ANSWER, "{said} bytes");
        if went_on.is_err() {
            break;
        }
    }
    // Nobody finishes a handshake without having seen the server's part of it.
    assert!(connection.is_handshaking());
    assert!(connection.peer_certificates().is_none());
}

fn config() -> Arc<ServerConfig> {
    static CONFIG: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    let made = CONFIG.get_or_init(|| {
        let now = Timestamp::now();
        let (authority, _) = Authority::generate(now).expect("an authority");
        let own = authority.issue(&Subject::server("server", ["127.0.0.1"]), now).expect("a certificate");
        let identity = tls::Identity::new(&own).expect("an identity");
        tls::server_config(identity, [authority.der().clone()]).expect("a configuration")
    });
    made.clone()
}

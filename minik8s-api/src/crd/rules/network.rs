//! Addresses, networks and URLs in rules, as Kubernetes has them.

use std::any::Any;
use std::net::{IpAddr, Ipv6Addr};

use cel::common::types::{CelBool, CelInt, CelString, STRING_TYPE, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use super::text::text;

type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

static IP: Type = Type::new_unspecified_type("net.IP");
static CIDR: Type = Type::new_unspecified_type("net.CIDR");
static URL: Type = Type::new_unspecified_type("kubernetes.URL");

macro_rules! value {
    ($name:ident, $type_:ident) => {
        impl Val for $name {
            fn get_type(&self) -> &Type {
                &$type_
            }

            fn cel_type() -> &'static Type {
                &$type_
            }

            fn equals(&self, other: &dyn Val) -> bool {
                other.downcast_ref::<Self>() == Some(self)
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
                Box::new(self.clone())
            }

            fn as_any(&self) -> Option<&dyn Any> {
                Some(self)
            }
        }

        impl StaticVal for $name {}
    };
}

#[derive(Clone, Debug, PartialEq)]
struct Ip(IpAddr);

#[derive(Clone, Debug, PartialEq)]
struct Cidr {
    address: IpAddr,
    bits: u8,
}

/// A URL in its parts; the path is as it was written.
#[derive(Clone, Debug, PartialEq)]
struct Url {
    scheme: String,
    host: String,
    path: String,
}

value!(Ip, IP);
value!(Cidr, CIDR);
value!(Url, URL);

impl Ip {
    /// Without zones and without IPv4 in IPv6, which mean different things to different programs.
    fn parse(text: &str) -> Option<Self> {
        let address: IpAddr = text.parse().ok()?;
        let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        (!mapped).then_some(Self(address))
    }
}

impl Cidr {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let (address, bits) = (Ip::parse(address)?.0, bits.parse().ok()?);
        (bits <= width(address)).then_some(Self { address, bits })
    }

    fn contains(&self, address: IpAddr, bits: u8) -> bool {
        width(address) == width(self.address)
            && bits >= self.bits
            && masked(address, self.bits) == masked(self.address, self.bits)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address as a number, with all but the first `bits` bits cleared.
fn masked(address: IpAddr, bits: u8) -> u128 {
    let (number, width) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    number.checked_shr(width - u32::from(bits)).map_or(0, |n| n << (width - u32::from(bits)))
}

impl Url {
    /// An absolute URL, or a path from the root.
    fn parse(text: &str) -> Option<Self> {
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return None;
        }
        let text = text.split(['?', '#']).next().unwrap_or_default();
        if text.starts_with('/') {
            return Some(Self { scheme: String::new(), host: String::new(), path: text.to_owned() });
        }
        let (scheme, rest) = text.split_once("://")?;
        let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        valid.then(|| Self { scheme: scheme.to_lowercase(), host: host.to_owned(), path: path.to_owned() })
    }

    /// The host's name, without brackets, and its port.
    fn host_and_port(&self) -> (&str, &str) {
        match self.host.strip_prefix('[').and_then(|h| h.split_once(']')) {
            Some((name, rest)) => (name, rest.trim_start_matches(':')),
            None => self.host.rsplit_once(':').unwrap_or((&self.host, "")),
        }
    }
}

/// `ip`, `cidr`, `url`, the questions whether a text is one, and their methods.
pub(super) fn extension(env: &mut Env) -> Result<(), DeclarationError> {
    let string = || vec![STRING_TYPE];
    env.add_overload("isIP", "isIP(string)", string(), |a| {
        truth(Ip::parse(text(a[0].as_ref(), "isIP")?).is_some())
    })?;
    env.add_overload("isCIDR", "isCIDR(string)", string(), |a| {
        truth(Cidr::parse(text(a[0].as_ref(), "isCIDR")?).is_some())
    })?;
    env.add_overload("isURL", "isURL(string)", string(), |a| {
        truth(Url::parse(text(a[0].as_ref(), "isURL")?).is_some())
    })?;
    env.add_overload("ip", "ip(string)", string(), |a| made(Ip::parse, &a, "ip"))?;
    env.add_overload("cidr", "cidr(string)", string(), |a| made(Cidr::parse, &a, "cidr"))?;
    env.add_overload("url", "url(string)", string(), |a| made(Url::parse, &a, "url"))?;
    env.add_overload("ip.isCanonical", "ip.isCanonical(string)", string(), |a| {
        let written = text(a[0].as_ref(), "ip.isCanonical")?;
        let parsed = Ip::parse(written).ok_or_else(|| wrong("ip.isCanonical", written))?;
        truth(parsed.0.to_string() == written)
    })?;
    addresses(env)?;
    networks(env)?;
    urls(env)
}

fn addresses(env: &mut Env) -> Result<(), DeclarationError> {
    let own = || IP.to_owned();
    env.add_member_overload("family", "ip.family()", own(), vec![], |a| {
        Ok(CowVal::owned(CelInt::from(if this::<Ip>(&a)?.0.is_ipv4() { 4 } else { 6 })))
    })?;
    env.add_member_overload("isUnspecified", "ip.isUnspecified()", own(), vec![], |a| {
        truth(this::<Ip>(&a)?.0.is_unspecified())
    })?;
    env.add_member_overload("isLoopback", "ip.isLoopback()", own(), vec![], |a| {
        truth(this::<Ip>(&a)?.0.is_loopback())
    })?;
    env.add_member_overload("isLinkLocalUnicast", "ip.isLinkLocalUnicast()", own(), vec![], |a| {
        truth(match this::<Ip>(&a)?.0 {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        })
    })?;
    env.add_member_overload("isLinkLocalMulticast", "ip.isLinkLocalMulticast()", own(), vec![], |a| {
        truth(link_local_multicast(this::<Ip>(&a)?.0))
    })?;
    env.add_member_overload("isGlobalUnicast", "ip.isGlobalUnicast()", own(), vec![], |a| {
        truth(global_unicast(this::<Ip>(&a)?.0))
    })?;
    env.add_overload("string", "string(ip)", vec![own()], |a| written(this::<Ip>(&a)?.0.to_string()))
}

fn link_local_multicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

/// In Go's sense: neither broadcast nor unspecified, loopback, multicast nor link-local.
fn global_unicast(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6 == Ipv6Addr::UNSPECIFIED,
    };
    !(local || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

fn networks(env: &mut Env) -> Result<(), DeclarationError> {
    let own = || CIDR.to_owned();
    env.add_member_overload("containsIP", "cidr.containsIP(ip)", own(), vec![IP.to_owned()], |a| {
        let address = this_at::<Ip>(&a, 1)?.0;
        truth(this::<Cidr>(&a)?.contains(address, width(address)))
    })?;
    env.add_member_overload("containsIP", "cidr.containsIP(string)", own(), vec![STRING_TYPE], |a| {
        let address = parsed(Ip::parse, &a, 1, "containsIP")?.0;
        truth(this::<Cidr>(&a)?.contains(address, width(address)))
    })?;
    env.add_member_overload("containsCIDR", "cidr.containsCIDR(cidr)", own(), vec![own()], |a| {
        let inner = this_at::<Cidr>(&a, 1)?;
        truth(this::<Cidr>(&a)?.contains(inner.address, inner.bits))
    })?;
    env.add_member_overload("containsCIDR", "cidr.containsCIDR(string)", own(), vec![STRING_TYPE], |a| {
        let inner = parsed(Cidr::parse, &a, 1, "containsCIDR")?;
        truth(this::<Cidr>(&a)?.contains(inner.address, inner.bits))
    })?;
    env.add_member_overload("prefixLength", "cidr.prefixLength()", own(), vec![], |a| {
        Ok(CowVal::owned(CelInt::from(i64::from(this::<Cidr>(&a)?.bits))))
    })?;
    env.add_member_overload("ip", "cidr.ip()", own(), vec![], |a| {
        Ok(CowVal::owned(Ip(this::<Cidr>(&a)?.address)))
    })?;
    env.add_member_overload("masked", "cidr.masked()", own(), vec![], |a| {
        let Cidr { address, bits } = *this::<Cidr>(&a)?;
        let number = masked(address, bits);
        let address = match address {
            IpAddr::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or(0).into()),
            IpAddr::V6(_) => IpAddr::V6(number.into()),
        };
        Ok(CowVal::owned(Cidr { address, bits }))
    })?;
    env.add_overload("string", "string(cidr)", vec![own()], |a| {
        let Cidr { address, bits } = this::<Cidr>(&a)?;
        written(format!("{address}/{bits}"))
    })
}

fn urls(env: &mut Env) -> Result<(), DeclarationError> {
    let own = || URL.to_owned();
    env.add_member_overload("getScheme", "url.getScheme()", own(), vec![], |a| {
        written(this::<Url>(&a)?.scheme.clone())
    })?;
    env.add_member_overload("getHost", "url.getHost()", own(), vec![], |a| {
        written(this::<Url>(&a)?.host.clone())
    })?;
    env.add_member_overload("getHostname", "url.getHostname()", own(), vec![], |a| {
        written(this::<Url>(&a)?.host_and_port().0.to_owned())
    })?;
    env.add_member_overload("getPort", "url.getPort()", own(), vec![], |a| {
        written(this::<Url>(&a)?.host_and_port().1.to_owned())
    })?;
    env.add_member_overload("getEscapedPath", "url.getEscapedPath()", own(), vec![], |a| {
        written(this::<Url>(&a)?.path.clone())
    })
}

fn wrong(function: &str, text: &str) -> ExecutionError {
    ExecutionError::function_error(function, format!("{text:?} has not the right form"))
}

fn truth<'b, 'v>(is: bool) -> Answer<'b, 'v> {
    Ok(CowVal::owned(CelBool::from(is)))
}

fn written<'b, 'v>(text: String) -> Answer<'b, 'v> {
    Ok(CowVal::owned(CelString::from(text)))
}

fn parsed<T>(
    parse: fn(&str) -> Option<T>,
    args: &[CowVal<'_, '_>],
    at: usize,
    function: &str,
) -> Result<T, ExecutionError> {
    let text = text(args[at].as_ref(), function)?;
    parse(text).ok_or_else(|| wrong(function, text))
}

fn made<'b, 'v, T: StaticVal + 'static>(
    parse: fn(&str) -> Option<T>,
    args: &[CowVal<'b, 'v>],
    function: &str,
) -> Answer<'b, 'v> {
    Ok(CowVal::owned(parsed(parse, args, 0, function)?))
}

fn this<'a, T: StaticVal>(args: &'a [CowVal<'_, '_>]) -> Result<&'a T, ExecutionError> {
    this_at(args, 0)
}

fn this_at<'a, T: StaticVal>(args: &'a [CowVal<'_, '_>], at: usize) -> Result<&'a T, ExecutionError> {
    let found = args[at].as_ref().downcast_ref::<T>();
    found.ok_or_else(|| ExecutionError::function_error("a method", "called on a value of another type"))
}

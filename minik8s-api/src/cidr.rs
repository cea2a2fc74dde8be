//! Blocks of addresses, such as `10.244.0.0/16`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// All addresses that share their first bits. Blocks are ordered by family, address and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// A text that names no block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no block of addresses, such as 10.244.0.0/16 or fd00::/48")]
pub struct CidrError(String);

impl Cidr {
    /// The block of that length that `address` is in; `None` for a length that addresses of its family do not have.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let host = bits(address).checked_sub(prefix)?;
        // All bits go where nothing is shared.
        let network = number(address).checked_shr(host.into()).unwrap_or(0);
        let network = network.checked_shl(host.into()).unwrap_or(0);
        Some(Self { network: address_of(network, address.is_ipv4()), prefix })
    }

    /// Its first address.
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// How many bits its addresses share.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether it is one of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.network.is_ipv4()
    }

    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4() && Self::new(address, self.prefix) == Some(*self)
    }

    /// Whether all of `other` is in it.
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.network)
    }

    /// Whether some address is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// How many blocks of that length are in it; `None` if that is no longer than its own, or too many to count.
    pub fn blocks(&self, prefix: u8) -> Option<u64> {
        let more = prefix.checked_sub(self.prefix).filter(|_| prefix <= bits(self.network))?;
        1u64.checked_shl(more.into())
    }

    /// The block of that length and number in it, counted from 0.
    pub fn block(&self, prefix: u8, index: u64) -> Option<Self> {
        self.blocks(prefix).filter(|&all| index < all)?;
        let host = bits(self.network) - prefix;
        let offset = u128::from(index).checked_shl(host.into())?;
        Some(Self { network: address_of(number(self.network) | offset, self.is_ipv4()), prefix })
    }

    /// The numbers, first and last, of the blocks of that length that share an address with `other`.
    pub fn touched(&self, prefix: u8, other: &Self) -> Option<(u64, u64)> {
        let all = self.blocks(prefix)?;
        if !self.overlaps(other) {
            return None;
        }
        if other.covers(self) {
            return Some((0, all - 1));
        }
        let host = u32::from(bits(self.network) - prefix);
        let index = |at: u128| {
            u64::try_from((at - number(self.network)).checked_shr(host).unwrap_or(0)).unwrap_or(u64::MAX)
        };
        let first = number(other.network);
        let size = 1u128.checked_shl((bits(self.network) - other.prefix).into());
        let last = size.map_or(u128::MAX, |size| first + (size - 1));
        Some((index(first), index(last)))
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn address_of(number: u128, v4: bool) -> IpAddr {
    if v4 {
        IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)))
    } else {
        IpAddr::V6(Ipv6Addr::from(number))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            Self::new(address.parse().ok()?, prefix.parse().ok()?)
        };
        parse().ok_or_else(|| CidrError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn texts_are_blocks_or_refused() {
        assert_eq!(cidr("10.244.7.9/16").to_string(), "10.244.0.0/16");
        assert_eq!(cidr("0.0.0.0/0").to_string(), "0.0.0.0/0");
        assert_eq!(cidr("::/0").to_string(), "::/0");
        assert_eq!(cidr("fd00::1/128").to_string(), "fd00::1/128");
        for text in ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0/8", "fd00::/129"] {
            assert!(text.parse::<Cidr>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn blocks_contain_and_overlap() {
        assert!(cidr("0.0.0.0/0").contains("255.255.255.255".parse().unwrap()));
        assert!(!cidr("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(cidr("10.0.0.0/8").covers(&cidr("10.1.0.0/16")));
        assert!(cidr("10.1.0.0/16").overlaps(&cidr("10.0.0.0/8")));
        assert!(!cidr("10.1.0.0/16").overlaps(&cidr("10.2.0.0/16")));
    }

    #[test]
    fn blocks_of_a_block_have_numbers() {
        let all = cidr("10.244.0.0/16");
        assert_eq!(all.blocks(24), Some(256));
        assert_eq!(all.block(24, 255).map(|b| b.to_string()).as_deref(), Some("10.244.255.0/24"));
        assert_eq!((all.block(24, 256), all.blocks(15), all.blocks(33)), (None, None, None));
        assert_eq!(all.touched(24, &cidr("10.244.3.128/25")), Some((3, 3)));
        assert_eq!(all.touched(24, &cidr("10.244.2.0/23")), Some((2, 3)));
        assert_eq!(all.touched(24, &cidr("10.0.0.0/8")), Some((0, 255)));
        assert_eq!(all.touched(24, &cidr("10.245.0.0/24")), None);
        let new = cidr("fd00::/48");
        assert_eq!(new.block(64, 1).map(|b| b.to_string()).as_deref(), Some("fd00:0:0:1::/64"));
        assert_eq!(new.touched(64, &cidr("fd00:0:0:1::/64")), Some((1, 1)));
    }
}

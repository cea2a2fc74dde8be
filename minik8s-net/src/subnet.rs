use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::{Error, Result};

/// A block of addresses such as `10.244.1.0/24`: the first one is the network's own, the second the gateway's, and with
/// IPv4 the last one is the broadcast address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    network: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The block that this address is in.
    ///
    /// # Errors
    /// [`Error::InvalidSubnet`] if it has no room for a gateway and a pod.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self> {
        let most = bits(address) - 2;
        if !(1..=most).contains(&prefix) {
            return Err(Error::InvalidSubnet(format!("{address}/{prefix}")));
        }
        let host_bits = bits(address) - prefix;
        let network = from_number(address.is_ipv4(), to_number(address) >> host_bits << host_bits);
        Ok(Self { network, prefix })
    }

    /// Its first address.
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// How many leading bits its addresses share.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The address of the node in it.
    pub fn gateway(&self) -> IpAddr {
        self.at(1)
    }

    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.network.is_ipv4()
            && Self::new(address, self.prefix).is_ok_and(|subnet| subnet.network == self.network)
    }

    /// How many addresses there are for pods.
    pub fn capacity(&self) -> u128 {
        // A block that leaves 128 bits to choose is refused, so this cannot overflow.
        let all = 1u128 << (bits(self.network) - self.prefix);
        if self.network.is_ipv4() { all - 3 } else { all - 2 }
    }

    /// The pod address of this number, counted from 0 and around.
    pub(crate) fn pod_address(&self, number: u128) -> IpAddr {
        self.at(2 + number % self.capacity())
    }

    /// The number of a pod address; `None` for any other.
    pub(crate) fn pod_number(&self, address: IpAddr) -> Option<u128> {
        if !self.contains(address) {
            return None;
        }
        let number = (to_number(address) - to_number(self.network)).checked_sub(2)?;
        (number < self.capacity()).then_some(number)
    }

    fn at(&self, offset: u128) -> IpAddr {
        from_number(self.network.is_ipv4(), to_number(self.network) + offset)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn from_number(v4: bool, number: u128) -> IpAddr {
    if v4 {
        // A number from an IPv4 block has no more than its 32 bits.
        IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)))
    } else {
        IpAddr::V6(Ipv6Addr::from(number))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::InvalidSubnet(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let prefix: u8 = prefix.parse().map_err(|_| invalid())?;
        Self::new(address, prefix).map_err(|_| invalid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn a_block_knows_its_addresses() {
        let block = subnet("10.244.1.77/24");
        assert_eq!(block.to_string(), "10.244.1.0/24");
        assert_eq!(block.gateway().to_string(), "10.244.1.1");
        assert_eq!(block.capacity(), 253);
        assert_eq!(block.pod_address(0).to_string(), "10.244.1.2");
        assert_eq!(block.pod_address(252).to_string(), "10.244.1.254");
        assert_eq!(block.pod_address(253), block.pod_address(0));
        for (address, number) in [
            ("10.244.1.2", Some(0)),
            ("10.244.1.254", Some(252)),
            ("10.244.1.1", None),
            ("10.244.1.255", None),
        ] {
            assert_eq!(block.pod_number(address.parse().unwrap()), number, "{address}");
        }
        assert_eq!(block.pod_number("10.244.2.5".parse().unwrap()), None);
        assert_eq!(block.pod_number("fd00::5".parse().unwrap()), None);
    }

    #[test]
    fn a_block_of_the_new_protocol() {
        let block = subnet("fd00:1::/64");
        assert_eq!(block.gateway().to_string(), "fd00:1::1");
        assert_eq!(block.capacity(), (1 << 64) - 2);
        assert_eq!(block.pod_address(5).to_string(), "fd00:1::7");
        assert_eq!(block.pod_number("fd00:1::7".parse().unwrap()), Some(5));
    }

    #[test]
    fn what_has_no_room_is_refused() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/31",
            "10.0.0.0/32",
            "10.0.0.0/0",
            "10.0.0.0/x",
            "fd00::/127",
            "fd00::/129",
        ] {
            assert!(text.parse::<Subnet>().is_err(), "{text:?}");
        }
        assert_eq!(subnet("10.0.0.0/30").capacity(), 1);
    }
}

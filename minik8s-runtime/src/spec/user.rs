//! Users and groups by the image's own `/etc/passwd` and `/etc/group`.

use super::SpecError;
use crate::runtime::{Image, Security};

/// Who a process is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Its user id.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// All its groups, the primary one first.
    pub groups: Vec<u32>,
}

/// The image's user database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    users: Vec<Account>,
    groups: Vec<Group>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

impl Accounts {
    /// Reads the two files; lines that are none are passed over.
    pub fn parse(passwd: &str, group: &str) -> Self {
        let users = passwd.lines().filter_map(|line| {
            let mut fields = line.trim().split(':');
            let name = fields.next()?.to_owned();
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(Account { name, uid, gid })
        });
        let groups = group.lines().filter_map(|line| {
            let mut fields = line.trim().split(':');
            let name = fields.next()?.to_owned();
            let gid = fields.nth(1)?.parse().ok()?;
            let members = fields.next().unwrap_or_default();
            Some(Group { name, gid, members: members.split(',').map(str::to_owned).collect() })
        });
        Self { users: users.collect(), groups: groups.collect() }
    }

    fn by_uid(&self, uid: u32) -> Option<&Account> {
        self.users.iter().find(|account| account.uid == uid)
    }

    fn by_name(&self, name: &str) -> Option<&Account> {
        self.users.iter().find(|account| account.name == name)
    }
}

/// Who runs: the pod's word before the image's. A number needs no entry; a name does. The groups are the primary one,
/// those that list the user as a member, and the pod's supplemental ones.
///
/// # Errors
/// A name that the image does not know; an id out of range.
pub fn resolve(security: &Security, image: &Image, accounts: &Accounts) -> Result<User, SpecError> {
    let (image_user, image_group) = match image.user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (image.user.as_str(), None),
    };
    let (uid, account) = match security.run_as_user {
        Some(uid) => {
            let uid = id(uid)?;
            (uid, accounts.by_uid(uid))
        }
        None if image_user.is_empty() => (0, accounts.by_uid(0)),
        // A user may be called by a number: the name is tried first, as everywhere on Unix.
        None => match (accounts.by_name(image_user), image_user.parse::<u32>()) {
            (Some(account), _) => (account.uid, Some(account)),
            (None, Ok(uid)) => (id(uid.into())?, accounts.by_uid(uid)),
            (None, Err(_)) => return Err(SpecError::UnknownUser(image_user.to_owned())),
        },
    };
    let gid = match (security.run_as_group, image_group) {
        (Some(gid), _) => id(gid)?,
        // The image's group goes with the image's user.
        (None, Some(group)) if security.run_as_user.is_none() => group_id(group, accounts)?,
        _ => account.map_or(0, |account| account.gid),
    };
    let mut groups = vec![gid];
    let mut join = |gid: u32| {
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    };
    if let Some(account) = account {
        let member = accounts.groups.iter().filter(|group| group.members.contains(&account.name));
        member.for_each(|group| join(group.gid));
    }
    for &gid in &security.supplemental_groups {
        join(id(gid)?);
    }
    Ok(User { uid, gid, groups })
}

fn group_id(group: &str, accounts: &Accounts) -> Result<u32, SpecError> {
    if let Some(known) = accounts.groups.iter().find(|known| known.name == group) {
        return Ok(known.gid);
    }
    match group.parse::<u32>() {
        Ok(gid) => id(gid.into()),
        Err(_) => Err(SpecError::UnknownGroup(group.to_owned())),
    }
}

/// Kubernetes' range of ids.
fn id(id: i64) -> Result<u32, SpecError> {
    u32::try_from(id).ok().filter(|&id| id <= i32::MAX.cast_unsigned()).ok_or(SpecError::IdOutOfRange(id))
}

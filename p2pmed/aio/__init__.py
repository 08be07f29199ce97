"""What waits: the loop's driver, group commits, links, mDNS, signature checks off the loop."""

// TAP devices and links: what Swift cannot name, for `struct ifreq` has a union in it. netdevice(7).
#ifndef CLINUX_TAP_H
#define CLINUX_TAP_H

// Bytes of a link's name, with the zero at its end.
int sl_link_name_size(void);

// Attaches a descriptor of /dev/net/tun to the TAP device of a name, or makes that, and writes back the name that it
// has. Frames have nothing in front of them. `name` has sl_link_name_size bytes. Returns 0 or an errno.
int sl_tap_attach(int descriptor, char *name);

// Change a link by its name. Return 0 or an errno.
int sl_link_set_mtu(const char *name, int bytes);
int sl_link_set_up(const char *name);

#endif

// The idea of this module opens its first file.

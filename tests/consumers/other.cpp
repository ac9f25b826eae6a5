// A second translation unit with the same headers: they are inline throughout, or it does not link.
#include <kumiki/kumiki.hpp>

using namespace kumiki::literals;

kumiki::cidr other() { return "10.88.0.0/24"_cidr; }

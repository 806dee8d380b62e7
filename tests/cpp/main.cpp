// doctest's runner; the tests are in the test_*.cpp files beside this one.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "doctest/doctest.h"

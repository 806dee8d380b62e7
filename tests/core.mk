# How tests/crash and tests/sim compile csrc/core, into the same objects: included by their Makefiles, which set VARIANT.
# CSRC names a patched copy of csrc when a mutations.py asks whether the tests notice.

CXX ?= g++
ROOT := ../..
CSRC ?= $(ROOT)/csrc
VARIANT ?= plain
BUILD ?= $(ROOT)/build/core/$(VARIANT)
# Absolute, as the tests give it: what was built by hand is known to them.
override BUILD := $(abspath $(BUILD))
UNITY ?= yes

CXXFLAGS_COMMON := -std=c++20 -pthread -g1 -Wall -Wextra -Wpedantic -Wshadow -Wconversion \
  -Wno-sign-conversion -Wnon-virtual-dtor -fvisibility=hidden
CPPFLAGS_ALL := -I$(CSRC) -I. -DFASTLOG_KILL_POINTS -MMD -MP
# What a patched copy leaves unused is no error.
WERROR ?= -Werror

FLAGS_plain := -O1
# Compiled as quickly as without optimization.
FLAGS_asan := -Og -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all \
  -D_GLIBCXX_ASSERTIONS
FLAGS_tsan := -Og -fno-omit-frame-pointer -fsanitize=thread
FLAGS := $(if $(filter $(VARIANTS),$(VARIANT)),$(FLAGS_$(VARIANT)))
ifeq ($(FLAGS),)
$(error VARIANT=$(VARIANT): use one of $(VARIANTS))
endif

.DELETE_ON_ERROR:

# Flags: a change rebuilds.
FLAGS_FILE := $(BUILD)/flags
FLAGS_NOW := $(CXX) $(CXXFLAGS_COMMON) $(FLAGS) $(CXXFLAGS)
.PHONY: force
$(FLAGS_FILE): force
	@mkdir -p $(BUILD)
	@echo '$(FLAGS_NOW)' | cmp -s - $@ || echo '$(FLAGS_NOW)' > $@

COMPILE = mkdir -p $(@D) && \
  $(CXX) $(CXXFLAGS_COMMON) $(WERROR) $(FLAGS) $(CXXFLAGS) $(CPPFLAGS_ALL) -c $< -o $@
$(BUILD)/%.o: $(BUILD)/%.cpp $(FLAGS_FILE)
	@$(COMPILE)
$(BUILD)/%.o: %.cpp $(FLAGS_FILE)
	@$(COMPILE)
$(BUILD)/core/%.o: $(CSRC)/core/%.cpp $(FLAGS_FILE)
	@$(COMPILE)
$(BUILD)/reader/%.o: $(CSRC)/reader/%.cpp $(FLAGS_FILE)
	@$(COMPILE)

include ../units.mk
CORE_OBJECTS := $(call objects,core_most,$(CORE)) $(call objects,core_rest,$(APART))

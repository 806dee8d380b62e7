# How tests/crash and tests/sim compile csrc/core, into the same objects: included by their Makefiles, which set VARIANT.
# CSRC names a patched copy of csrc when a mutations.py asks whether the tests notice.

CXX ?= g++
ROOT := ../..
CSRC ?= $(ROOT)/csrc
VARIANT ?= plain
BUILD ?= $(ROOT)/build/core/$(VARIANT)
# Absolute, as the tests give it: what was built by hand is known to them.
override BUILD := $(abspath $(BUILD))
# Many files are compiled as one, in a quarter of the time. UNITY=no: each by itself, for who changes single files.
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

# $(call objects,NAME,FILES): of these files, which are compiled as NAME.
objects = $(if $(filter yes,$(UNITY)),$(BUILD)/$(1).o,$(2:%.cpp=$(BUILD)/%.o))
# $(eval $(call as_one,NAME,FILES)): how that comes about.
define as_one
$(BUILD)/$(1).cpp: force
	@mkdir -p $(BUILD)
	@printf '#include "%s"\n' $(2) | cmp -s - $$@ || printf '#include "%s"\n' $(2) > $$@
endef

# What the simulation has of its own, and what records without it.
RECORDING := $(addsuffix .cpp,$(addprefix core/,machine fork_watch kill_point recorder flush_thread collector))
# What has names in common with the others.
APART := $(addsuffix .cpp,$(addprefix core/,ring_image shadow_files unfinished))
CORE := $(filter-out $(RECORDING) $(APART),$(patsubst $(CSRC)/%,%,$(sort $(wildcard $(CSRC)/core/*.cpp))))
CORE_OBJECTS := $(call objects,core_most,$(CORE)) $(call objects,core_rest,$(APART))
$(eval $(call as_one,core_most,$(CORE)))
$(eval $(call as_one,core_rest,$(APART)))

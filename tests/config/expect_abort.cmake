# Passes if PROGRAM ARGUMENT is ended by abort() after printing EXPECTED.
execute_process(COMMAND ${PROGRAM} ${ARGUMENT} RESULT_VARIABLE ended OUTPUT_VARIABLE out ERROR_VARIABLE err)
if(NOT ended MATCHES "[Aa]bort")
  message(FATAL_ERROR "expected an abort, got '${ended}'\n${out}${err}")
endif()
string(FIND "${err}" "${EXPECTED}" at)
if(at EQUAL -1)
  message(FATAL_ERROR "expected '${EXPECTED}' on stderr, got:\n${err}")
endif()

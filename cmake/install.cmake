# The install tree: headers, find_package(kumiki CONFIG) and pkg-config. Nothing is compiled, so it
# is the same for every architecture and lies under share/.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(kumiki_cmake_dir ${CMAKE_INSTALL_DATADIR}/cmake/kumiki)

install(TARGETS kumiki EXPORT kumiki FILE_SET HEADERS)
install(
    EXPORT kumiki
    NAMESPACE kumiki::
    FILE kumiki-targets.cmake
    DESTINATION ${kumiki_cmake_dir}
)
configure_package_config_file(
    ${PROJECT_SOURCE_DIR}/cmake/kumiki-config.cmake.in ${PROJECT_BINARY_DIR}/kumiki-config.cmake
    INSTALL_DESTINATION ${kumiki_cmake_dir}
    NO_SET_AND_CHECK_MACRO
)
write_basic_package_version_file(
    ${PROJECT_BINARY_DIR}/kumiki-config-version.cmake
    COMPATIBILITY SameMinorVersion
    ARCH_INDEPENDENT
)
install(
    FILES ${PROJECT_BINARY_DIR}/kumiki-config.cmake ${PROJECT_BINARY_DIR}/kumiki-config-version.cmake
    DESTINATION ${kumiki_cmake_dir}
)

configure_file(${PROJECT_SOURCE_DIR}/cmake/kumiki.pc.in ${PROJECT_BINARY_DIR}/kumiki.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/kumiki.pc DESTINATION ${CMAKE_INSTALL_DATADIR}/pkgconfig)
